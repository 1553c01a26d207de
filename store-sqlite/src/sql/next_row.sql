-- the first key of [text, text) that has a row
select key
from annals_view_rows
where generation = ?1 and key >= ?2 and key < ?3
order by key limit 1
