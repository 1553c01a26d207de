-- wakes the sessions that listen for the head to move
select pg_catalog.pg_notify($1, $2)
