-- a new replica has copied nothing
insert or ignore into annals_replica (one, cursor) values (1, 0)
