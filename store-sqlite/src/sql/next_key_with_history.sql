-- the first key of [text, text) that has a version
select key
from annals_view_versions indexed by annals_view_versions_by_key
where generation = ?1 and key >= ?2 and key < ?3
order by key limit 1
