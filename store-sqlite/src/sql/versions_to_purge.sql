-- the versions that end after a position (at the next one: from a key on) and at or before another,
-- in the order of the ends
select up_to, key
from annals_view_versions
where generation = ?1 and (up_to, key) >= (?2 + 1, ?3) and up_to <= ?4
order by up_to, key
limit ?5
