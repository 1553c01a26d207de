-- the checkpoints of a generation, in the order of slot and partition
select slot, partition, position, event, state
from annals_view_checkpoints
where generation = ?1
order by slot, partition
