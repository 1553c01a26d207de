-- the positions in (position, position] of the events that touched a key, ascending
select position
from annals_view_touched
where generation = ?1 and key = ?2 and position > ?3 and position <= ?4
order by position
limit ?5
