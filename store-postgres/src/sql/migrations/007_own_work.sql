-- version 7: the lease of a worker is renewed while work of the application's runs in its step; no row stands in a generation that is gone

-- what stands against a step: 0 nothing, 1 the generation is gone, 2 nobody has the lease, 3 it was given back, 4 it is another's (owner
-- and number: whose), 5 the slot stands elsewhere (number: where). until the transaction ends the generation is not dropped, and, when
-- this look is the last one, nobody else takes a step there or takes the lease. before the last one the lease may be renewed, and it may
-- be taken: then the last look finds it.
drop function annals.look_at_step(bigint, bytea, bytea, bigint, bigint, bigint, bigint);

create function annals.look_at_step(
    of_generation bigint,
    of_lease bytea,
    of_owner bytea,
    of_epoch bigint,
    of_slot bigint,
    of_partition bigint,
    from_position bigint,
    is_last boolean default true,
    out refusal bigint,
    out owner bytea,
    out number bigint
)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    kept record;
    is_kept boolean;
begin
    if is_last then
        select lease.owner, lease.epoch, lease.given_back into kept from annals.lease where name = of_lease for no key update;
    else
        -- in the way of whoever drops the generation, which deletes the lease, and of nobody who changes it
        select lease.owner, lease.epoch, lease.given_back into kept from annals.lease where name = of_lease for key share;
    end if;
    is_kept := found;
    -- a statement of its own, behind the lock: it sees what was committed before the lock was given
    if not exists (select from annals.view_generation where id = of_generation and phase <> 3) then
        refusal := 1;
        return;
    end if;
    if not is_kept then
        refusal := 2;
        return;
    end if;
    owner := kept.owner;
    number := kept.epoch;
    if kept.given_back then
        refusal := 3;
        return;
    end if;
    if kept.owner <> of_owner or kept.epoch <> of_epoch then
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

-- for an append: sees to it that there is a place for where each of these rows stands, before somebody takes hold of it. a generation is
-- not dropped while places are made in it; in one that is being changed just now none is made, and the row is left out: an append waits
-- for nobody. a place is no row: it is on the disk with the first row that needs it.
create or replace function annals.make_stands(generations bigint[], keys bytea[]) returns void
language plpgsql volatile as $$
begin
    if not exists (
        select from unnest(generations, keys) as given(generation, key)
        where not exists (
            select from annals.view_version as kept where kept.generation = given.generation and kept.key = given.key
        )
    ) then
        return;
    end if;
    perform set_config('synchronous_commit', 'off', true);
    with held as materialized (
        select id from annals.view_generation where id = any (generations) and phase <> 3 order by id for share skip locked
    )
    insert into annals.view_version (generation, key, version)
    select given.generation, given.key, 0
    from unnest(generations, keys) as given(generation, key)
    join held on held.id = given.generation
    order by given.generation, given.key
    on conflict do nothing;
end
$$;

-- for a step: as make_stands, of one generation, which is not dropped while the lease is held in place. where the one or the other is gone
-- nothing is made.
create function annals.make_stands_of_step(of_generation bigint, of_lease bytea, keys bytea[]) returns void
language plpgsql volatile as $$
begin
    if not exists (
        select from unnest(keys) as given(key)
        where not exists (select from annals.view_version as kept where kept.generation = of_generation and kept.key = given.key)
    ) then
        return;
    end if;
    perform from annals.lease where name = of_lease for key share;
    if not found then
        return;
    end if;
    -- a statement of its own, behind the lock: it sees whether the generation was dropped before the lock was given
    insert into annals.view_version (generation, key, version)
    select of_generation, given.key, 0
    from unnest(keys) as given(key)
    where exists (select from annals.view_generation where id = of_generation and phase <> 3)
    order by given.key
    on conflict do nothing;
end
$$;

-- what was dropped is cleared away by statements of their own
drop function annals.clear_generation(integer);
