-- removes a dead letter that was applied, skipped or discarded
delete from annals_view_dead_letters
where generation = ?1 and key = ?2 and partition = ?3 and position = ?4
