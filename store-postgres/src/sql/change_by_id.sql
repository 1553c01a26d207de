-- the change of a stream that was made under an id
select stream.name, change.change, change.before
from annals.stream_change as change
join annals.stream on stream.key = change.stream
where change.change_id = $1
