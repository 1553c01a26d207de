-- as commit_step, with what the slot keeps for itself: a key without a value is removed
create or replace function annals.commit_step_with_state(
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
    state_keys bytea[],
    state_values bytea[],
    out refusal bigint,
    out owner bytea,
    out number bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
    select committed.refusal, committed.owner, committed.number into refusal, owner, number
    from annals.commit_step(
        of_generation, of_lease, of_owner, of_epoch, of_slot, of_partition, from_position,
        to_position, to_event, to_state, changes
    ) as committed;
    if refusal <> 0 then
        return;
    end if;
    delete from annals.view_state as kept
    using unnest(state_keys, state_values) as given(key, value)
    where kept.generation = of_generation and kept.slot = of_slot and kept.key = given.key
        and given.value is null;
    insert into annals.view_state (generation, slot, key, value)
    select of_generation, of_slot, given.key, given.value
    from unnest(state_keys, state_values) as given(key, value)
    where given.value is not null
    on conflict (generation, slot, key) do update set value = excluded.value;
end
$$;
