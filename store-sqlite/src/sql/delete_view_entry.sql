-- removes an entry of an index
delete from annals_view_entries where generation = ?1 and "index" = ?2 and entry = ?3 and key = ?4
