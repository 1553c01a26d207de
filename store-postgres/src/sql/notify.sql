-- wakes the sessions that listen for the head to move, when there are any: they share a lock
select pg_catalog.pg_notify($1, $2)
where not pg_catalog.pg_try_advisory_xact_lock(
    1095650894, 'annals.event'::pg_catalog.regclass::pg_catalog.oid::pg_catalog.int4
)
