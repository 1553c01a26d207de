-- a row of generation 1 is what it is now.
insert into annals_view_rows (generation, key, entries, value) values (1, ?1, null, ?2)
on conflict (generation, key) do update set value = excluded.value;
