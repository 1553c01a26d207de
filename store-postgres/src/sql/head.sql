-- the head
select coalesce(pg_catalog.max(position), 0) from annals.event
