-- as commit_step, for an inline view: a row that appends brought as far is left as it is, and one
-- that moved, but not so far, refuses the step (6; owner is its key, number its stream version)
create or replace function annals.commit_inline_step(
    of_generation bigint,
    of_lease bytea,
    of_owner bytea,
    of_epoch bigint,
    of_slot bigint,
    of_partition bigint,
    from_position bigint,
    to_position bigint,
    to_event uuid,
    to_state bytea,
    changes annals.view_changes,
    advanced_keys bytea[],
    advanced_froms bigint[],
    advanced_tos bigint[],
    out refusal bigint,
    out owner bytea,
    out number bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_variable
declare
    applied bytea[] := '{}';
    advance record;
    found_version bigint;
begin
    select checked.refusal, checked.owner, checked.number into refusal, owner, number
    from annals.check_step(
        of_generation, of_lease, of_owner, of_epoch, of_slot, of_partition, from_position, true
    ) as checked;
    if refusal <> 0 then
        return;
    end if;
    for advance in
        select given.key, given.goes_from, given.goes_to
        from unnest(advanced_keys, advanced_froms, advanced_tos) as given(key, goes_from, goes_to)
        order by given.key
    loop
        select kept.version into found_version
        from annals.view_stream_version as kept
        where kept.generation = of_generation and kept.key = advance.key
        for update;
        found_version := coalesce(found_version, 0);
        if found_version >= advance.goes_to and found_version <> advance.goes_from then
            applied := applied || advance.key;
        elsif found_version <> advance.goes_from then
            refusal := 6;
            owner := advance.key;
            number := found_version;
            return;
        end if;
    end loop;
    update annals.view_stream_version as kept set version = given.goes_to
    from unnest(advanced_keys, advanced_tos) as given(key, goes_to)
    where kept.generation = of_generation and kept.key = given.key and given.key <> all (applied);
    if cardinality(applied) > 0 then
        select
            coalesce(array_agg(given.key), '{}'), coalesce(array_agg(given.index), '{}'),
            coalesce(array_agg(given.entry), '{}')
        into changes.entry_keys, changes.entry_indexes, changes.entries
        from unnest(changes.entry_keys, changes.entry_indexes, changes.entries)
            as given(key, index, entry)
        where given.key <> all (applied);
        select coalesce(array_agg(given.key), '{}'), coalesce(array_agg(given.value), '{}')
        into changes.row_keys, changes.row_values
        from unnest(changes.row_keys, changes.row_values) as given(key, value)
        where given.key <> all (applied);
        select
            coalesce(array_agg(given.key), '{}'), coalesce(array_agg(given.after), '{}'),
            coalesce(array_agg(given.up_to), '{}'), coalesce(array_agg(given.recorded), '{}'),
            coalesce(array_agg(given.value), '{}')
        into
            changes.version_keys, changes.version_afters, changes.version_up_tos,
            changes.version_recorded, changes.version_values
        from unnest(
            changes.version_keys, changes.version_afters, changes.version_up_tos,
            changes.version_recorded, changes.version_values
        ) as given(key, after, up_to, recorded, value)
        where given.key <> all (applied);
        select coalesce(array_agg(given.key), '{}'), coalesce(array_agg(given.position), '{}')
        into changes.touched_keys, changes.touched_positions
        from unnest(changes.touched_keys, changes.touched_positions) as given(key, position)
        where given.key <> all (applied);
    end if;
    perform annals.write_step(
        of_generation, of_slot, of_partition, to_position, to_event, to_state, changes
    );
end
$$;
