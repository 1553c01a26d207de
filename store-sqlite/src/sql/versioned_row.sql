-- the stream version that an inline row includes, and the row's value when there is one
select stream_versions.version, rows.value
from annals_view_stream_versions as stream_versions
left join annals_view_rows as rows
    on rows.generation = stream_versions.generation and rows.key = stream_versions.key
where stream_versions.generation = ?1 and stream_versions.key = ?2
