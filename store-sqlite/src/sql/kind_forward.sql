-- positions of events of a kind, ascending, from the index alone
select position
from annals_events
where kind = ?1 and position >= ?2 and position <= ?3
order by position limit ?4
