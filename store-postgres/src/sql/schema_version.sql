-- the newest migration that the schema has seen
select max(version) from annals.migration
