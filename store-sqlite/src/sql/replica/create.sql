-- how far the local copy of a log that is kept elsewhere has come; a table of replicas alone
create table if not exists annals_replica (one integer primary key check (one = 1), cursor integer not null, note text) strict
