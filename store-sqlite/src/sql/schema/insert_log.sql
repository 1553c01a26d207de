-- gives the log its id, once
insert into annals_log (one, id, created_at) values (1, ?1, ?2)
