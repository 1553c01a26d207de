-- the key of a stream's name
select key from annals_streams where name = ?1
