-- keeps that a change of a stream was done
insert into annals_stream_changes (id, stream, change, before) values (?1, ?2, ?3, ?4)
