-- positions of a stream's events down from a version, descending, from the index alone
select position
from annals_events
where stream = ?1 and version >= ?2 and version <= ?3
order by version desc limit ?4
