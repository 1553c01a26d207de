-- as write_rows, with the index entries of each row: key, number of the index, entry.
-- only entries that differ are written.
create or replace function annals.write_indexed_rows(
    of_generation bigint,
    keys bytea[],
    new_values bytea[],
    entry_keys bytea[],
    entry_indexes bigint[],
    entries bytea[]
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set jit = off
as $$
begin
    delete from annals.view_index_entry
    using (
        select kept.key, known.place - 1 as index, known.entry
        from unnest(keys) as given(key)
        join annals.view_row as kept on kept.generation = of_generation and kept.key = given.key
        cross join unnest(kept.entries) with ordinality as known(entry, place)
        except
        select given.key, given.index, given.entry
        from unnest(entry_keys, entry_indexes, entries) as given(key, index, entry)
    ) as gone
    where view_index_entry.generation = of_generation and view_index_entry.index = gone.index
        and view_index_entry.entry = gone.entry and view_index_entry.key = gone.key;
    insert into annals.view_index_entry (generation, index, entry, key)
    select of_generation, given.index, given.entry, given.key
    from unnest(entry_keys, entry_indexes, entries) as given(key, index, entry)
    on conflict do nothing;
    merge into annals.view_row as kept
    using (
        select given.key, given.value, listed.entries
        from unnest(keys, new_values) as given(key, value)
        left join (
            select entry.key, array_agg(entry.entry order by entry.index) as entries
            from unnest(entry_keys, entry_indexes, entries) as entry(key, index, entry)
            group by entry.key
        ) as listed on listed.key = given.key
    ) as given
    on kept.generation = of_generation and kept.key = given.key
    when matched and given.value is null then delete
    when matched then update set value = given.value, entries = given.entries
    when not matched and given.value is not null then
        insert (generation, key, value, entries)
        values (of_generation, given.key, given.value, given.entries);
end
$$;
