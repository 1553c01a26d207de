-- the key of a tag
select key from annals_tags where name = ?1
