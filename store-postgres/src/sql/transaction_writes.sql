-- the open transaction, when it has written; fails when a statement of it has failed
select pg_catalog.pg_current_xact_id_if_assigned()::text
