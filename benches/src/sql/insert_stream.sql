-- gives a stream its key
insert into annals_streams (name) values (?1)
