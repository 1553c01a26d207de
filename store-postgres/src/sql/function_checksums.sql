-- the functions that the schema has, by their checksums, and whether a newer release wrote them
select name, checksum, release > $1 from annals.function
