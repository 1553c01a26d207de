-- removes an event from the index of a tag
delete from annals_event_tags where tag = ?1 and position = ?2
