-- positions of events with a tag, descending
select position
from annals_event_tags
where tag = ?1 and position >= ?2 and position <= ?3
order by position desc limit ?4
