-- makes an event found by a tag
insert into annals_event_tags (tag, position) values (?1, ?2)
