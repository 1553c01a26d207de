-- what was done to the tables, and when (microseconds since 1970)
create table if not exists annals.migration (version integer primary key, applied_at bigint not null)
