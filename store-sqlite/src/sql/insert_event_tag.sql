-- adds an event to the index of a tag
insert into annals_event_tags (tag, position) values (?1, ?2)
