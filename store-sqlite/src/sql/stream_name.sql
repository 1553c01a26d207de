-- the name of a key; it never changes
select name from annals_streams where key = ?1
