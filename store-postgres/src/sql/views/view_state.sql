-- a generation and its checkpoints, of one moment; nothing when it is dropped
select part, key, value, entry, slot, partition, position, event
from annals.view_state($1)
order by part, slot, partition
