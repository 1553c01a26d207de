-- positions of events that are not archived, descending
select position
from annals_events
where position >= ?1 and position <= ?2 and kind > 0
order by position desc limit ?3
