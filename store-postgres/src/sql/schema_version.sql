-- the newest migration that was applied to the schema
select pg_catalog.max(version) from annals.migration
