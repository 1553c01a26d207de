-- what is left of removed events in [position, position], descending
select events.position, streams.name, kinds.type, events.occurred_at, events.recorded_at
from annals_events as events indexed by annals_events_removed
cross join annals_streams as streams on streams.key = events.stream
left join annals_kinds as kinds on kinds.key = -events.kind
where events.kind <= 0 and events.position >= ?1 and events.position <= ?2
order by events.position desc
limit ?3
