-- keeps a deletion, so that an earlier version of the stream can still be read
insert into annals_deletions (stream, version, position, recorded_at) values (?1, ?2, ?3, ?4)
