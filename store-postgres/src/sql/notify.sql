-- wakes the sessions that listen for the head to move, when there are any: they share a lock. one
-- that asks releases it in the same expression, else others that ask take it for one that listens
select pg_catalog.pg_notify($1, $2)
from (
    select 'annals.event'::pg_catalog.regclass::pg_catalog.oid::pg_catalog.int4 as key
) as log
where case
    when pg_catalog.pg_try_advisory_lock(1095650894, log.key)
        then not pg_catalog.pg_advisory_unlock(1095650894, log.key)
    else true
end
