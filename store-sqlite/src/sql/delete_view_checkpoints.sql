-- no slot of this generation stands anywhere any more
delete from annals_view_checkpoints where generation = ?1
