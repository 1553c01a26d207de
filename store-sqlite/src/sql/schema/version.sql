-- the newest migration that the file has seen
select max(version) from annals_migrations
