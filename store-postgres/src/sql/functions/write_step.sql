-- writes a step that was checked. fails by view_row_version_by_key when a version of a row ends
-- where one ends already.
create or replace function annals.write_step(
    of_generation bigint,
    of_slot bigint,
    of_partition bigint,
    to_position bigint,
    to_event uuid,
    to_state bytea,
    changes annals.view_changes
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set jit = off
as $$
begin
    if cardinality(changes.row_keys) > 0 then
        if changes.has_indexes then
            perform annals.write_indexed_rows(
                of_generation, changes.row_keys, changes.row_values, changes.entry_keys,
                changes.entry_indexes, changes.entries
            );
        else
            perform annals.write_rows(of_generation, changes.row_keys, changes.row_values);
        end if;
    end if;
    if cardinality(changes.version_keys) > 0 then
        insert into annals.view_row_version (generation, key, after, up_to, recorded_at, value)
        select of_generation, given.key, given.after, given.up_to, given.recorded_at, given.value
        from unnest(
            changes.version_keys, changes.version_afters, changes.version_up_tos,
            changes.version_recorded, changes.version_values
        ) as given(key, after, up_to, recorded_at, value);
    end if;
    if cardinality(changes.touched_keys) > 0 then
        insert into annals.view_touched (generation, key, position)
        select of_generation, given.key, given.position
        from unnest(changes.touched_keys, changes.touched_positions) as given(key, position)
        on conflict do nothing;
    end if;
    if cardinality(changes.settled_keys) > 0 then
        delete from annals.view_dead_letter
        using unnest(changes.settled_keys, changes.settled_positions) as given(key, position)
        where view_dead_letter.generation = of_generation and view_dead_letter.key = given.key
            and view_dead_letter.partition = of_partition
            and view_dead_letter.position = given.position;
    end if;
    if cardinality(changes.letter_keys) > 0 then
        insert into annals.view_dead_letter (
            generation, key, partition, position, event, attempts, dead_since, cause
        )
        select
            of_generation, given.key, of_partition, given.position, given.event, given.attempts,
            given.dead_since, given.cause
        from unnest(
            changes.letter_keys, changes.letter_positions, changes.letter_events,
            changes.letter_attempts, changes.letter_moments, changes.letter_causes
        ) as given(key, position, event, attempts, dead_since, cause)
        on conflict (generation, key, partition, position) do update
        set
            event = excluded.event,
            attempts = excluded.attempts,
            dead_since = excluded.dead_since,
            cause = excluded.cause;
    end if;
    insert into annals.view_checkpoint (generation, slot, partition, position, event, state)
    values (of_generation, of_slot, of_partition, to_position, to_event, to_state)
    on conflict (generation, slot, partition) do update
    set position = excluded.position, event = excluded.event, state = excluded.state;
end
$$;
