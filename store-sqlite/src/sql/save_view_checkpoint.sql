-- a slot of a generation stands here from now on
replace into annals_view_checkpoints (generation, slot, partition, position, event, state) values (?1, ?2, ?3, ?4, ?5, ?6)
