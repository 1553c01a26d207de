-- gives a new log its id, for good
insert into annals.log (one, id, created_at) values (1, $1, $2)
