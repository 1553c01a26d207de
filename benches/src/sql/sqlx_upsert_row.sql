-- a row of generation 1 is what it is now.
insert into annals.view_row (generation, key, value) values (1, $1, $2)
on conflict (generation, key) do update set value = excluded.value
