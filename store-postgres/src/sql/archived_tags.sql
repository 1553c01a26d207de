-- the tags of the events that an archiving removes
select position, tags from annals.event where stream = $1 and version < $2 and tags is not null
