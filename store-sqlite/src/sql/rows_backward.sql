-- rows with keys in [text, text), descending
select key, value
from annals_view_rows
where generation = ?1 and key >= ?2 and key < ?3
order by key desc
