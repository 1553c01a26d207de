-- gives a tag its key
insert into annals_tags (name) values (?1)
