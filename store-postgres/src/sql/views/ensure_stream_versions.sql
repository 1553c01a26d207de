-- makes the rows in which appends keep the stream versions of these keys
select annals.ensure_stream_versions($1, $2)
