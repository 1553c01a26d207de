-- whether a process of the server still works at something, or has left something open
select exists (
    select from pg_catalog.pg_stat_activity
    where pid = $1 and extract(epoch from backend_start)::text = $2
    and state is distinct from 'idle'
)
