-- what is left of removed events from a position to another
select event.position, stream.name, kind.type, event.occurred_at, event.recorded_at
from annals.event
join annals.stream on stream.key = event.stream
left join annals.kind on kind.key = -event.kind and kind.key > 0
where event.kind <= 0 and event.position >= $1 and event.position <= $2
order by event.position /*desc*/
limit $3
