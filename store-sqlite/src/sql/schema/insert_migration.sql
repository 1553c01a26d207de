-- remembers that a migration was done, in the transaction that does it
insert into annals_migrations (version, applied_at) values (?1, ?2)
