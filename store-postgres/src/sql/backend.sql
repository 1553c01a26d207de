-- which of the server's processes this connection speaks to, and since when
select pid, extract(epoch from backend_start)::text
from pg_catalog.pg_stat_activity
where pid = pg_catalog.pg_backend_pid()
