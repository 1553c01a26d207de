-- the key of a category; no row when it is one of the others
select key from annals_categories where name = ?1 and key > 0
