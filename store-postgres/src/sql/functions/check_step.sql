-- why a step is refused: 0 it is not, 1 the generation is dropped, 2 there is no such lease, 3 it
-- was released, 4 another holds it (owner and number: its epoch), 5 the slot is at another position
-- (number). until the transaction ends the generation is not dropped, and, when this check is the
-- last one, no other step is committed there and the lease is not taken. before the last one the
-- lease may be renewed, and it may be taken: then the last check finds it.
create or replace function annals.check_step(
    of_generation bigint,
    of_lease bytea,
    of_owner bytea,
    of_epoch bigint,
    of_slot bigint,
    of_partition bigint,
    from_position bigint,
    is_last boolean,
    out refusal bigint,
    out owner bytea,
    out number bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    held record;
    is_held boolean;
begin
    if is_last then
        select lease.owner, lease.epoch, lease.is_released into held
        from annals.lease
        where name = of_lease
        for no key update;
    else
        -- Conflicts with dropping the generation, which deletes the lease; with no change of it.
        select lease.owner, lease.epoch, lease.is_released into held
        from annals.lease
        where name = of_lease
        for key share;
    end if;
    is_held := found;
    -- A statement of its own, after the lock: it sees what was committed before the lock was given.
    if not exists (
        select from annals.view_generation where id = of_generation and phase <> 3
    ) then
        refusal := 1;
        return;
    end if;
    if not is_held then
        refusal := 2;
        return;
    end if;
    owner := held.owner;
    number := held.epoch;
    if held.is_released then
        refusal := 3;
        return;
    end if;
    if held.owner <> of_owner or held.epoch <> of_epoch then
        refusal := 4;
        return;
    end if;
    select position into number
    from annals.view_checkpoint
    where generation = of_generation and slot = of_slot and partition = of_partition;
    number := coalesce(number, 0);
    refusal := case when number = from_position then 0 else 5 end;
end
$$;
