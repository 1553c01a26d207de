-- one program at a time makes or upgrades this schema; released at the end of the transaction
select pg_catalog.pg_advisory_xact_lock(1095650893, pg_catalog.hashtext($1))
