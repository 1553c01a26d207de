-- where a slot of a generation stands in a partition
select position from annals_view_checkpoints where generation = ?1 and slot = ?2 and partition = ?3
