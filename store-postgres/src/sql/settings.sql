-- what decides whether a commit survives a power cut, and whether every name can be stored
select
    pg_catalog.current_setting('fsync'),
    pg_catalog.current_setting('full_page_writes'),
    pg_catalog.current_setting('synchronous_commit'),
    pg_catalog.current_setting('server_encoding')
