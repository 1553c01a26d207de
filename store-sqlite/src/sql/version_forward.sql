-- positions of a stream's events from a version on, ascending, from the index alone
select position
from annals_events
where stream = ?1 and version >= ?2 and version <= ?3
order by version limit ?4
