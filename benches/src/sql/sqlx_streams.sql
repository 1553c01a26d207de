-- every stream by its key.
select key, name from annals.stream
