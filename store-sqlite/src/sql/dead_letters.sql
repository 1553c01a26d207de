-- the dead letters after a key, partition and position, in their order
select key, partition, position, event, attempts, dead_since, cause
from annals_view_dead_letters
where generation = ?1 and (key, partition, position) > (?2, ?3, ?4)
order by key, partition, position
limit ?5
