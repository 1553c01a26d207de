-- writes rows without indexes, each key once; a null value deletes the row. nothing is joined: a
-- plan is made while there are few rows and kept while there are many, and a join that was planned
-- for few compares each with each.
create or replace function annals.write_rows(
    of_generation bigint,
    keys bytea[],
    new_values bytea[]
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set jit = off
as $$
declare
    gone bytea[];
begin
    insert into annals.view_row (generation, key, value)
    select of_generation, given.key, given.value
    from unnest(keys, new_values) as given(key, value)
    where given.value is not null
    on conflict (generation, key) do update set value = excluded.value;
    if array_position(new_values, null) is not null then
        gone := array(
            select given.key
            from unnest(keys, new_values) as given(key, value)
            where given.value is null
        );
        delete from annals.view_row where generation = of_generation and key = any (gone);
    end if;
end
$$;
