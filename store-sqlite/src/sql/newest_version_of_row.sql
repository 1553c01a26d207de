-- the newest version of a row that ends at or before a position
select up_to, after, recorded_at, value
from annals_view_versions indexed by annals_view_versions_by_key
where generation = ?1 and key = ?2 and up_to <= ?3
order by up_to desc
limit 1
