-- removes the checkpoints of a generation
delete from annals_view_checkpoints where generation = ?1
