-- which migrations a file has seen; a table of its own, because user_version may be the
-- application's
create table if not exists annals_migrations (version integer primary key, applied_at integer not null) strict
