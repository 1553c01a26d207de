-- the change of a stream with this id
select is_deletion, position, recorded_at from annals.stream_change where change_id = $1
