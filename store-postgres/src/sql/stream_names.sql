-- the names of keys; they never change in one incarnation
select key, name from annals.stream where key = any ($1)
