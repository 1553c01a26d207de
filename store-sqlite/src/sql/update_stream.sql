-- keeps the state of a stream
update annals_streams
set status = ?2, truncated_before = ?3, archived_before = ?4, deletions = ?5
where key = ?1
