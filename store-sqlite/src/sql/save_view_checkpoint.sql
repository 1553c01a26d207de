-- moves the checkpoint of a slot and partition
replace into annals_view_checkpoints (generation, slot, partition, position, event, state)
values (?1, ?2, ?3, ?4, ?5, ?6)
