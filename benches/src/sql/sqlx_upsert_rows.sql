-- rows of generation 1 are what they are now.
insert into annals.view_row (generation, key, value)
select 1, * from unnest($1::bytea[], $2::bytea[])
on conflict (generation, key) do update set value = excluded.value
