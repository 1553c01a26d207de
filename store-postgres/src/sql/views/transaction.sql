-- which transaction this is
select pg_current_xact_id()::text
