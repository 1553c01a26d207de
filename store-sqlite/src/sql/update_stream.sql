-- what became of a stream besides its events
update annals_streams
set status = ?2, truncated_before = ?3, archived_before = ?4, deletions = ?5
where key = ?1
