-- the keys of the versions that end in (position, position], in the order of the ends
select key
from annals_view_versions
where generation = ?1 and up_to > ?2 and up_to <= ?3
order by up_to
