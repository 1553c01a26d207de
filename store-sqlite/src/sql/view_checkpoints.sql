-- where the slots of a generation stand, in the order of slot and partition
select slot, partition, position, event, state
from annals_view_checkpoints
where generation = ?1
order by slot, partition
