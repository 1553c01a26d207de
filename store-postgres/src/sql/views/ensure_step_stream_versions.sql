-- makes the rows in which a step keeps the stream versions of these keys, under its lease
select annals.ensure_step_stream_versions($1, $2, $3)
