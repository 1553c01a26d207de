-- version, position and append of the event of an id; also of an archived one
select
    events.position, events.version, events.append_index, events.append_events, events.digest,
    streams.name
from annals_events as events
join annals_streams as streams on streams.key = events.stream
where events.id = ?1
