-- the change of a stream with an id
select streams.name, changes.change, changes.before
from annals_stream_changes as changes
join annals_streams as streams on streams.key = changes.stream
where changes.id = ?1
