-- keeps a deletion, so that the past can be told apart from the present
insert into annals_deletions (stream, version, position, recorded_at) values (?1, ?2, ?3, ?4)
