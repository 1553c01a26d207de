-- an event is no longer found by a tag
delete from annals_event_tags where tag = ?1 and position = ?2
