-- whether the schema is there, and the table of its migrations
select
    exists (select from pg_catalog.pg_namespace where nspname = $1),
    exists (
        select from pg_catalog.pg_class
        join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
        where nspname = $1 and relname = 'migration'
    )
