-- gives a stream its key; without events it is still absent
insert into annals_streams (name) values (?1)
