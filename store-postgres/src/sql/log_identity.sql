-- which incarnation this connection reads, in one moment, and whether all of it is durable: on a
-- standby it is, and on a primary when everything was flushed that was written until then. where a
-- standby must have it too, only a commit finds out.
select
    log, started, incarnation, head, head_event, known_event, is_standby,
    case
        when is_standby then true
        when pg_catalog.current_setting('synchronous_standby_names') <> '' then false
        else pg_catalog.pg_current_wal_flush_lsn() >= pg_catalog.pg_current_wal_insert_lsn()
    end as is_durable
from annals.log_identity($1)
