-- how the open transaction is isolated from others
select pg_catalog.current_setting('transaction_isolation')
