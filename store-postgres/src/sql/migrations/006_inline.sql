-- version 6: rows of inline views travel with appends

-- where rows of inline views stand is there before an append or a step takes hold of it, so that nobody waits inside the section for
-- somebody else's insert
create function annals.make_stands(generations bigint[], keys bytea[]) returns void
language sql volatile as $$
    insert into annals.view_version (generation, key, version)
    select given.generation, given.key, 0
    from unnest(generations, keys) as given(generation, key)
    join annals.view_generation as kept on kept.id = given.generation and kept.phase <> 3
    order by given.generation, given.key
    on conflict do nothing
$$;

-- as append, and writes the rows that travel with the batch: of each the place of its append, how far it goes, and its value; its entries
-- and its past by its place in the list, the past also by the place of the event in the batch. a row is left out with its append, when it
-- stands elsewhere, when its generation is gone, and when somebody else works on it just now: the section waits for nobody.
create function annals.append_with_rows(
    known_head bigint,
    known_changes bigint,
    appends integer[],
    streams bigint[],
    versions bigint[],
    kinds integer[],
    indexes integer[],
    counts integer[],
    occurred bigint[],
    recorded bigint[],
    ids uuid[],
    digests uuid[],
    tags text[],
    metadata bytea[],
    payloads bytea[],
    tag_hashes bigint[],
    tag_events integer[],
    revived bigint[],
    relying_appends integer[],
    relying_streams bigint[],
    relying_versions bigint[],
    conditions jsonb,
    least_behind bigint,
    row_appends integer[],
    row_generations bigint[],
    row_keys bytea[],
    row_froms bigint[],
    row_tos bigint[],
    row_values bytea[],
    rows_have_indexes boolean[],
    rows_are_bitemporal boolean[],
    entry_rows integer[],
    entry_indexes bigint[],
    entries bytea[],
    past_rows integer[],
    past_events integer[],
    past_values bytea[],
    out is_done boolean,
    out first bigint,
    out changes bigint,
    out moved_streams bigint[],
    out moved_versions bigint[],
    out skips integer[]
)
language plpgsql volatile as $$
#variable_conflict use_variable
declare
    positions bigint[];
    travels record;
    stands bigint;
begin
    select written.is_done, written.first, written.changes, written.moved_streams, written.moved_versions, written.skips
    into is_done, first, changes, moved_streams, moved_versions, skips
    from annals.append(
        known_head, known_changes, appends, streams, versions, kinds, indexes, counts, occurred, recorded, ids, digests, tags, metadata,
        payloads, tag_hashes, tag_events, revived, relying_appends, relying_streams, relying_versions, conditions, least_behind
    ) as written;
    if not is_done then
        return;
    end if;
    -- where the events stand, by their places in the batch; those that were left out take up no place
    select array_agg(first - 1 + counted.kept_place order by counted.place) into positions
    from (
        select given.place, count(*) filter (where skips is null or given.append <> all (skips)) over (order by given.place) as kept_place
        from unnest(appends) with ordinality as given(append, place)
    ) as counted;
    for travels in
        select given.*
        from unnest(
            row_appends, row_generations, row_keys, row_froms, row_tos, row_values, rows_have_indexes, rows_are_bitemporal
        ) with ordinality as given(append, generation, key, goes_from, goes_to, value, has_indexes, is_bitemporal, place)
        where skips is null or given.append <> all (skips)
    loop
        perform from annals.view_generation as kept
        where kept.id = travels.generation and kept.phase <> 3
        for share skip locked;
        continue when not found;
        select kept.version into stands
        from annals.view_version as kept
        where kept.generation = travels.generation and kept.key = travels.key
        for update skip locked;
        continue when not found or stands <> travels.goes_from;
        if travels.has_indexes then
            perform annals.change_indexed_rows(
                travels.generation, array[travels.key], array[travels.value],
                coalesce(array_agg(travels.key) filter (where given.entry is not null), '{}'),
                coalesce(array_agg(given.index order by given.index) filter (where given.entry is not null), '{}'),
                coalesce(array_agg(given.entry order by given.index) filter (where given.entry is not null), '{}')
            )
            from unnest(entry_rows, entry_indexes, entries) as given(of_row, index, entry)
            where given.of_row = travels.place;
        else
            perform annals.change_rows(travels.generation, array[travels.key], array[travels.value]);
        end if;
        insert into annals.view_version (generation, key, after, up_to, recorded_at, value)
        select travels.generation, travels.key, event.position - 1, event.position, event.recorded_at, given.value
        from unnest(past_rows, past_events, past_values) as given(of_row, event, value)
        join annals.event as event on event.position = positions[given.event]
        where given.of_row = travels.place;
        if travels.is_bitemporal then
            insert into annals.view_touched (generation, key, position)
            select travels.generation, travels.key, positions[given.event]
            from unnest(past_rows, past_events) as given(of_row, event)
            where given.of_row = travels.place
            on conflict do nothing;
        end if;
        update annals.view_version as kept set version = travels.goes_to
        where kept.generation = travels.generation and kept.key = travels.key;
    end loop;
end
$$;

-- as take_step, for an inline view: a row that appends brought as far is left as it is, and one that moved, but not so far, stands against
-- the step (6; owner is its key and number where it stands)
create function annals.take_inline_step(
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
    row_keys bytea[],
    row_values bytea[],
    has_indexes boolean,
    entry_keys bytea[],
    entry_indexes bigint[],
    entries bytea[],
    version_keys bytea[],
    version_afters bigint[],
    version_up_tos bigint[],
    version_recorded bigint[],
    version_values bytea[],
    touched_keys bytea[],
    touched_positions bigint[],
    settled_keys bytea[],
    settled_positions bigint[],
    dead_letter_keys bytea[],
    parked_positions bigint[],
    dead_letter_events uuid[],
    parked_attempts bigint[],
    parked_moments bigint[],
    parked_causes bytea[],
    stand_keys bytea[],
    stand_froms bigint[],
    stand_tos bigint[],
    out refusal bigint,
    out owner bytea,
    out number bigint
)
language plpgsql volatile as $$
#variable_conflict use_variable
declare
    known bytea[] := '{}';
    goes record;
    stands bigint;
begin
    select looked.refusal, looked.owner, looked.number into refusal, owner, number
    from annals.look_at_step(
        of_generation, of_lease, of_owner, of_epoch, of_slot, of_partition, from_position
    ) as looked;
    if refusal <> 0 then
        return;
    end if;
    for goes in
        select given.key, given.goes_from, given.goes_to
        from unnest(stand_keys, stand_froms, stand_tos) as given(key, goes_from, goes_to)
        order by given.key
    loop
        select kept.version into stands
        from annals.view_version as kept
        where kept.generation = of_generation and kept.key = goes.key
        for update;
        stands := coalesce(stands, 0);
        if stands >= goes.goes_to and stands <> goes.goes_from then
            known := known || goes.key;
        elsif stands <> goes.goes_from then
            refusal := 6;
            owner := goes.key;
            number := stands;
            return;
        end if;
    end loop;
    update annals.view_version as kept set version = given.goes_to
    from unnest(stand_keys, stand_tos) as given(key, goes_to)
    where kept.generation = of_generation and kept.key = given.key and given.key <> all (known);
    if cardinality(known) > 0 then
        select coalesce(array_agg(given.key), '{}'), coalesce(array_agg(given.index), '{}'), coalesce(array_agg(given.entry), '{}')
        into entry_keys, entry_indexes, entries
        from unnest(entry_keys, entry_indexes, entries) as given(key, index, entry)
        where given.key <> all (known);
        select coalesce(array_agg(given.key), '{}'), coalesce(array_agg(given.value), '{}') into row_keys, row_values
        from unnest(row_keys, row_values) as given(key, value)
        where given.key <> all (known);
        select
            coalesce(array_agg(given.key), '{}'), coalesce(array_agg(given.after), '{}'), coalesce(array_agg(given.up_to), '{}'),
            coalesce(array_agg(given.recorded), '{}'), coalesce(array_agg(given.value), '{}')
        into version_keys, version_afters, version_up_tos, version_recorded, version_values
        from unnest(
            version_keys, version_afters, version_up_tos, version_recorded, version_values
        ) as given(key, after, up_to, recorded, value)
        where given.key <> all (known);
        select coalesce(array_agg(given.key), '{}'), coalesce(array_agg(given.position), '{}') into touched_keys, touched_positions
        from unnest(touched_keys, touched_positions) as given(key, position)
        where given.key <> all (known);
    end if;
    perform annals.write_step(
        of_generation, of_slot, of_partition, to_position, to_event, to_state, row_keys, row_values, has_indexes, entry_keys,
        entry_indexes, entries, version_keys, version_afters, version_up_tos, version_recorded, version_values, touched_keys,
        touched_positions, settled_keys, settled_positions, dead_letter_keys, parked_positions, dead_letter_events, parked_attempts,
        parked_moments, parked_causes
    );
end
$$;
