-- whether the file was ever opened by annals
select exists (select 1 from sqlite_schema where type = 'table' and name = 'annals_migrations')
