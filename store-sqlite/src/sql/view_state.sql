-- what a slot keeps from a key on (?4: after it), by key
select key, value
from annals_view_state
where generation = ?1 and slot = ?2 and key >= ?3 and (?4 = 0 or key > ?3)
order by key
