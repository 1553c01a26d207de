-- rows from a key on, up to but without another, in order
select key, value from annals_view_rows where generation = ?1 and key >= ?2 and key < ?3 order by key
