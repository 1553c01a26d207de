-- as `append`, and writes the rows of inline views with the appends that still hold. a row is left
-- out when its stream version is another, when its generation is dropped, and when a step has it
-- locked: this lock waits for no other.
create or replace function annals.append_with_rows(
    known_incarnation uuid,
    known_head bigint,
    known_event uuid,
    known_changes bigint,
    batch annals.append_batch,
    carried annals.inline_rows,
    out is_done boolean,
    out first bigint,
    out moved_streams bigint[],
    out moved_versions bigint[],
    out skipped integer[]
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
    positions bigint[];
    written record;
    found_version bigint;
begin
    select done.is_done, done.first, done.moved_streams, done.moved_versions, done.skipped
    into is_done, first, moved_streams, moved_versions, skipped
    from annals.append(known_incarnation, known_head, known_event, known_changes, batch) as done;
    if not is_done then
        return;
    end if;
    -- The positions of the events by their order in the batch; skipped ones take up none.
    select array_agg(first - 1 + counted.kept_place order by counted.place) into positions
    from (
        select
            given.place,
            count(*) filter (where skipped is null or given.append <> all (skipped))
                over (order by given.place) as kept_place
        from unnest(batch.appends) with ordinality as given(append, place)
    ) as counted;
    for written in
        select given.*
        from unnest(
            carried.appends, carried.generations, carried.keys, carried.froms, carried.tos,
            carried.new_values, carried.have_indexes, carried.are_bitemporal
        ) with ordinality as given(
            append, generation, key, goes_from, goes_to, value, has_indexes, is_bitemporal, place
        )
        where skipped is null or given.append <> all (skipped)
    loop
        perform from annals.view_generation as kept
        where kept.id = written.generation and kept.phase <> 3
        for share skip locked;
        continue when not found;
        select kept.version into found_version
        from annals.view_stream_version as kept
        where kept.generation = written.generation and kept.key = written.key
        for update skip locked;
        continue when not found or found_version <> written.goes_from;
        if written.has_indexes then
            perform annals.write_indexed_rows(
                written.generation, array[written.key], array[written.value],
                coalesce(array_agg(written.key) filter (where given.entry is not null), '{}'),
                coalesce(
                    array_agg(given.index order by given.index)
                        filter (where given.entry is not null),
                    '{}'
                ),
                coalesce(
                    array_agg(given.entry order by given.index)
                        filter (where given.entry is not null),
                    '{}'
                )
            )
            from unnest(carried.entry_rows, carried.entry_indexes, carried.entries)
                as given(of_row, index, entry)
            where given.of_row = written.place;
        else
            perform annals.write_rows(written.generation, array[written.key], array[written.value]);
        end if;
        insert into annals.view_row_version (generation, key, after, up_to, recorded_at, value)
        select
            written.generation, written.key, event.position - 1, event.position,
            event.recorded_at, given.value
        from unnest(carried.version_rows, carried.version_events, carried.version_values)
            as given(of_row, event, value)
        join annals.event as event on event.position = positions[given.event]
        where given.of_row = written.place;
        if written.is_bitemporal then
            insert into annals.view_touched (generation, key, position)
            select written.generation, written.key, positions[given.event]
            from unnest(carried.version_rows, carried.version_events) as given(of_row, event)
            where given.of_row = written.place
            on conflict do nothing;
        end if;
        update annals.view_stream_version as kept set version = written.goes_to
        where kept.generation = written.generation and kept.key = written.key;
    end loop;
end
$$;
