-- the events between two positions, both included, as an append reports them
select event.position, event.version, event.id, stream.name
from annals.event
join annals.stream on stream.key = event.stream
where event.position >= $1 and event.position <= $2
order by event.position
