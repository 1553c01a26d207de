-- the key of a category; no row for one without kinds of its own
select key from annals_categories where name = ?1 and key > 0
