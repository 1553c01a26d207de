-- the versions of a row that end in (position, position], oldest first
select up_to, after, recorded_at, value
from annals_view_versions indexed by annals_view_versions_by_key
where generation = ?1 and key = ?2 and up_to > ?3 and up_to <= ?4
order by up_to
limit ?5
