-- every kind of a type
select key from annals_kinds where type = ?1 and key > 0
