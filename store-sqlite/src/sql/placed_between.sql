-- the events in [position, position], also archived ones
select events.position, events.version, events.id, streams.name
from annals_events as events
join annals_streams as streams on streams.key = events.stream
where events.position between ?1 and ?2
order by events.position
