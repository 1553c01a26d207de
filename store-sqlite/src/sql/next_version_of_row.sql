-- where the run of the next version of a row behind a position begins
select after
from annals_view_versions indexed by annals_view_versions_by_key
where generation = ?1 and key = ?2 and up_to > ?3
order by up_to
limit 1
