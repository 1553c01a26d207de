-- whether the file is the local copy of a log that is kept elsewhere
select exists (select 1 from sqlite_schema where type = 'table' and name = 'annals_replica')
