-- what is set aside behind a key, partition and position, in their order
select key, partition, position, event, attempts, parked_at, cause
from annals_view_parked
where generation = ?1 and (key, partition, position) > (?2, ?3, ?4)
order by key, partition, position
limit ?5
