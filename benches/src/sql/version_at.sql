-- what a row of generation 1 was at a position: the newest that is not after it; by its key, and
-- not through what ended before.
select value
from annals_view_versions indexed by annals_view_versions_by_key
where generation = 1 and key = ?1 and up_to <= ?2
order by up_to desc
limit 1;
