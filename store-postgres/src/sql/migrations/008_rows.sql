-- version 8: rows are changed without looking through those that are there

-- changes rows without indexes, each key once; a null value removes the row. nothing is joined: a plan is made while there are few rows and
-- kept while there are many, and a join that was planned for few compares each with each.
create or replace function annals.change_rows(of_generation bigint, keys bytea[], new_values bytea[]) returns void
language plpgsql volatile as $$
begin
    insert into annals.view_row (generation, key, value)
    select of_generation, given.key, given.value
    from unnest(keys, new_values) as given(key, value)
    where given.value is not null
    on conflict (generation, key) do update set value = excluded.value;
    if array_position(new_values, null) is not null then
        perform annals.remove_rows(
            of_generation,
            array(select given.key from unnest(keys, new_values) as given(key, value) where given.value is null)
        );
    end if;
end
$$;

-- removes rows, as far as they are there
create function annals.remove_rows(of_generation bigint, keys bytea[]) returns void
language plpgsql volatile
set enable_seqscan = off
set jit = off
as $$
begin
    delete from annals.view_row where generation = of_generation and key = any (keys);
end
$$;
