-- the tags of the events that archiving removes
select position, tags from annals_events where stream = ?1 and version < ?2 and tags is not null
