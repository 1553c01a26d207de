-- the positions, versions and appends of the events of these ids, also of removed ones; for ever
select
    wanted.place, event.position, event.version, event.append_index, event.append_events,
    event.digest, stream.name
from pg_catalog.unnest($1::uuid[]) with ordinality as wanted(id, place)
join annals.event on event.id = wanted.id
join annals.stream on stream.key = event.stream
