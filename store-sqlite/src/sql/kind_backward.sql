-- positions of events of a kind, descending, from the index alone
select position
from annals_events
where kind = ?1 and position >= ?2 and position <= ?3
order by position desc limit ?4
