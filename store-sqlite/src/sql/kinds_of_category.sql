-- every kind of a category
select key from annals_kinds where category = ?1 and key > 0
