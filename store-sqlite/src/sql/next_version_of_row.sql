-- where the first version of a row that ends after a position starts
select after
from annals_view_versions indexed by annals_view_versions_by_key
where generation = ?1 and key = ?2 and up_to > ?3
order by up_to
limit 1
