-- the checkpoint of a slot and partition
select position from annals_view_checkpoints where generation = ?1 and slot = ?2 and partition = ?3
