-- as log_identity, and when it returns all of it is durable: its commit is after everything that it
-- saw, and is flushed
select
    log, started, incarnation, head, head_event, known_event, is_standby,
    case
        when is_standby then true
        else
            pg_catalog.set_config('synchronous_commit', 'on', true) is not null
            and pg_catalog.pg_logical_emit_message(true, 'annals', ''::pg_catalog.text) is not null
    end as is_durable
from annals.log_identity($1)
