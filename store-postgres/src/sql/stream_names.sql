-- the names behind keys; they never change
select key, name from annals.stream where key = any ($1)
