-- how the open transaction is isolated from others, and from which number on it has staged appends
select
    pg_catalog.current_setting('transaction_isolation'),
    nullif(pg_catalog.current_setting('annals_staged.from_number', true), '')::bigint
