-- version 3: read models: generations, their rows and their past, how far they have come, what is set aside, and who works on them; and
-- snapshots. keys, entries, names and reasons are bytes in UTF-8, because they may hold what no text of PostgreSQL may, and are compared
-- byte by byte. times are microseconds since 1970. every function here that changes something is called as a statement of its own, or in a
-- transaction of the store.

create sequence annals.lease_epoch;

create table annals.lease (
    name bytea primary key,
    owner bytea not null,
    epoch bigint not null,
    ends_at bigint not null,
    given_back boolean not null
) with (fillfactor = 50);

-- phase: 0 building, 1 live, 2 kept, 3 dropped and not cleared away yet. keeps: 0 the present, 1 history, 2 also what touched a key.
-- the past before history_since is forgotten, and cleared away up to cleared_to. handles and indexes are JSON.
create table annals.view_generation (
    id bigint generated always as identity primary key,
    view bytea not null,
    version bigint not null,
    phase bigint not null,
    keeps bigint not null,
    inline boolean not null,
    partitions bigint not null,
    slots bigint not null,
    log uuid not null,
    begun_at bigint not null,
    history_since bigint not null,
    cleared_to bigint not null default 0,
    handles text not null,
    indexes text not null
);

create index view_generation_by_view on annals.view_generation (view, id);

-- entries: those of the indexes, in their order; null without indexes. room is left in the pages, so that a changed row stays where it is.
create table annals.view_row (
    generation bigint not null,
    key bytea not null,
    entries bytea[],
    value bytea not null,
    primary key (generation, key)
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);

-- index: its place among the indexes of the generation, from 0.
create table annals.view_entry (
    generation bigint not null,
    index bigint not null,
    entry bytea not null,
    key bytea not null,
    primary key (generation, index, entry, key)
) with (autovacuum_vacuum_scale_factor = 0.05);

-- what a row was after the events behind `after`, up to `up_to`; a null value: there was none.
create table annals.view_version (
    generation bigint not null,
    key bytea not null,
    up_to bigint not null,
    after bigint not null,
    recorded_at bigint not null,
    value bytea,
    constraint view_version_by_key primary key (generation, key, up_to)
);

create index view_version_by_end on annals.view_version (generation, up_to);

create table annals.view_touched (
    generation bigint not null,
    key bytea not null,
    position bigint not null,
    primary key (generation, key, position)
);

create table annals.view_parked (
    generation bigint not null,
    key bytea not null,
    partition bigint not null,
    position bigint not null,
    event uuid not null,
    attempts bigint not null,
    parked_at bigint not null,
    cause bytea,
    primary key (generation, key, partition, position)
);

create table annals.view_checkpoint (
    generation bigint not null,
    slot bigint not null,
    partition bigint not null,
    position bigint not null,
    event uuid,
    state bytea not null,
    primary key (generation, slot, partition)
) with (fillfactor = 50);

-- has_key: false when it is about all keys, and the key is empty then.
create table annals.view_verdict (
    view bytea not null,
    partition bigint not null,
    position bigint not null,
    has_key boolean not null,
    key bytea not null,
    event uuid not null,
    decided_at bigint not null,
    reason bytea not null,
    primary key (view, partition, position, has_key, key)
);

-- rows of inline views: the version of its stream at which each stands, also where there is no row any more. 0: not written yet.
create table annals.view_version (
    generation bigint not null,
    key bytea not null,
    version bigint not null,
    primary key (generation, key)
) with (fillfactor = 60);

create table annals.snapshot (
    stream text collate "C" not null,
    fold bytea not null,
    fold_version bigint not null,
    version bigint not null,
    codec bytea not null,
    payload bytea not null,
    primary key (stream, fold, fold_version, version)
);

-- the moment by the clock of the server
create function annals.present() returns bigint
language sql volatile as $$
    select (extract(epoch from clock_timestamp()) * 1000000)::bigint
$$;

-- takes a lease that is free or has ended, and says who has it then. `at` is the moment; null: by the clock of the server.
create function annals.acquire_lease(
    of_name bytea,
    asker bytea,
    ttl bigint,
    at bigint,
    out is_granted boolean,
    out owner bytea,
    out epoch bigint,
    out ends_at bigint
)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    moment bigint := coalesce(at, annals.present());
begin
    -- the number is drawn once more when somebody had the lease: behind the lock on it, so after every number that it ever had
    insert into annals.lease (name, owner, epoch, ends_at, given_back)
    values (of_name, asker, nextval('annals.lease_epoch'), least(moment + ttl, 253402300799000000), false)
    on conflict (name) do update
    set owner = excluded.owner, epoch = nextval('annals.lease_epoch'), ends_at = excluded.ends_at, given_back = false
    where lease.given_back or lease.ends_at <= moment;
    is_granted := found;
    select lease.owner, lease.epoch, lease.ends_at into owner, epoch, ends_at from annals.lease where lease.name = of_name;
end
$$;

-- one at a time switches or drops a generation of a view
create function annals.lock_view(of_id bigint) returns void
language plpgsql volatile as $$
begin
    perform from annals.view_generation
    where view = (select view from annals.view_generation where id = of_id)
    order by id
    for no key update;
end
$$;

-- switches the readers of a version to a generation; false when it is gone
create function annals.switch_generation(to_id bigint) returns boolean
language plpgsql volatile as $$
declare
    chosen record;
begin
    perform annals.lock_view(to_id);
    select view, version into chosen from annals.view_generation where id = to_id and phase <> 3;
    if not found then
        return false;
    end if;
    update annals.view_generation
    set phase = case when id = to_id then 1 else 2 end
    where view = chosen.view and version = chosen.version and (id = to_id or phase = 1);
    return true;
end
$$;

-- puts a generation out of sight, with the leases of these names: 0 done, 1 gone already, 2 it is the only live one of its view
create function annals.drop_generation(of_id bigint, lease_names bytea[]) returns bigint
language plpgsql volatile as $$
declare
    dropped record;
begin
    perform annals.lock_view(of_id);
    select view, phase into dropped from annals.view_generation where id = of_id and phase <> 3;
    if not found then
        return 1;
    end if;
    if dropped.phase = 1
        and not exists (select from annals.view_generation where view = dropped.view and id <> of_id and phase = 1)
    then
        return 2;
    end if;
    -- whoever takes a step holds its lease to the end, so this waits for the steps that are being taken
    delete from annals.lease where name = any (lease_names);
    delete from annals.view_checkpoint where generation = of_id;
    update annals.view_generation set phase = 3 where id = of_id;
    return 0;
end
$$;

-- whether a generation is there and how far it has come, as the beginning of a page of rows: part 0 is the generation (position: since
-- when its past is kept), 1 a checkpoint (value: its state), 2 a row
create function annals.view_state(of_generation bigint)
returns table (
    part bigint, key bytea, value bytea, entry bytea, slot bigint, partition bigint, "position" bigint, event uuid
)
language sql stable as $$
    select 0::bigint, null::bytea, null::bytea, null::bytea, null::bigint, null::bigint, history_since, null::uuid
    from annals.view_generation
    where id = of_generation and phase <> 3
    union all
    select 1, null, state, null, slot, partition, position, event
    from annals.view_checkpoint
    where generation = of_generation
$$;

-- what stands against a step: 0 nothing, 1 the generation is gone, 2 nobody has the lease, 3 it was given back, 4 it is another's (owner
-- and number: whose), 5 the slot stands elsewhere (number: where). until the transaction ends nobody else takes a step there, takes the
-- lease, or drops the generation.
create function annals.look_at_step(
    of_generation bigint,
    of_lease bytea,
    of_owner bytea,
    of_epoch bigint,
    of_slot bigint,
    of_partition bigint,
    from_position bigint,
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
    select lease.owner, lease.epoch, lease.given_back into kept from annals.lease where name = of_lease for no key update;
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

-- changes rows without indexes, each key once; a null value removes the row. planned once, and always key by key: how many keys there are
-- is another number each time.
create function annals.change_rows(of_generation bigint, keys bytea[], new_values bytea[]) returns void
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
set jit = off
as $$
begin
    merge into annals.view_row as kept
    using (select given.key, given.value from unnest(keys, new_values) as given(key, value)) as given
    on kept.generation = of_generation and kept.key = given.key
    when matched and given.value is null then delete
    when matched then update set value = given.value
    when not matched and given.value is not null then
        insert (generation, key, value) values (of_generation, given.key, given.value);
end
$$;

-- as change_rows, with the entries of each row: the key, the place of the index, and the entry. only entries that differ are touched.
create function annals.change_indexed_rows(
    of_generation bigint,
    keys bytea[],
    new_values bytea[],
    entry_keys bytea[],
    entry_indexes bigint[],
    entries bytea[]
) returns void
language plpgsql volatile
set jit = off
as $$
begin
    delete from annals.view_entry
    using (
        select kept.key, known.place - 1 as index, known.entry
        from unnest(keys) as given(key)
        join annals.view_row as kept on kept.generation = of_generation and kept.key = given.key
        cross join unnest(kept.entries) with ordinality as known(entry, place)
        except
        select given.key, given.index, given.entry
        from unnest(entry_keys, entry_indexes, entries) as given(key, index, entry)
    ) as gone
    where view_entry.generation = of_generation and view_entry.index = gone.index and view_entry.entry = gone.entry
        and view_entry.key = gone.key;
    insert into annals.view_entry (generation, index, entry, key)
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
        insert (generation, key, value, entries) values (of_generation, given.key, given.value, given.entries);
end
$$;

-- keeps what rows were; fails by view_version_by_key when a version ends where one ends already
create function annals.keep_versions(
    of_generation bigint,
    keys bytea[],
    afters bigint[],
    up_tos bigint[],
    recorded bigint[],
    old_values bytea[]
) returns void
language sql volatile as $$
    insert into annals.view_version (generation, key, after, up_to, recorded_at, value)
    select of_generation, given.key, given.after, given.up_to, given.recorded_at, given.value
    from unnest(keys, afters, up_tos, recorded, old_values) as given(key, after, up_to, recorded_at, value)
$$;

-- keeps which events touched which key; what is known stays
create function annals.keep_touched(of_generation bigint, keys bytea[], positions bigint[]) returns void
language sql volatile as $$
    insert into annals.view_touched (generation, key, position)
    select of_generation, given.key, given.position
    from unnest(keys, positions) as given(key, position)
    on conflict do nothing
$$;

-- writes a step that nothing stands against
create function annals.write_step(
    of_generation bigint,
    of_slot bigint,
    of_partition bigint,
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
    parked_causes bytea[]
) returns void
language plpgsql volatile as $$
begin
    if cardinality(row_keys) > 0 then
        if has_indexes then
            perform annals.change_indexed_rows(of_generation, row_keys, row_values, entry_keys, entry_indexes, entries);
        else
            perform annals.change_rows(of_generation, row_keys, row_values);
        end if;
    end if;
    if cardinality(version_keys) > 0 then
        perform annals.keep_versions(
            of_generation, version_keys, version_afters, version_up_tos, version_recorded, version_values
        );
    end if;
    if cardinality(touched_keys) > 0 then
        perform annals.keep_touched(of_generation, touched_keys, touched_positions);
    end if;
    if cardinality(settled_keys) > 0 then
        delete from annals.view_parked
        using unnest(settled_keys, settled_positions) as given(key, position)
        where view_parked.generation = of_generation and view_parked.key = given.key
            and view_parked.partition = of_partition and view_parked.position = given.position;
    end if;
    if cardinality(dead_letter_keys) > 0 then
        insert into annals.view_parked (generation, key, partition, position, event, attempts, parked_at, cause)
        select of_generation, given.key, of_partition, given.position, given.event, given.attempts, given.parked_at, given.cause
        from unnest(
            dead_letter_keys, parked_positions, dead_letter_events, parked_attempts, parked_moments, parked_causes
        ) as given(key, position, event, attempts, parked_at, cause)
        on conflict (generation, key, partition, position) do update
        set event = excluded.event, attempts = excluded.attempts, parked_at = excluded.parked_at, cause = excluded.cause;
    end if;
    insert into annals.view_checkpoint (generation, slot, partition, position, event, state)
    values (of_generation, of_slot, of_partition, to_position, to_event, to_state)
    on conflict (generation, slot, partition) do update
    set position = excluded.position, event = excluded.event, state = excluded.state;
end
$$;

-- a whole step: looks, as look_at_step says, and writes it when nothing stands against it
create function annals.take_step(
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
    out refusal bigint,
    out owner bytea,
    out number bigint
)
language plpgsql volatile as $$
begin
    select looked.refusal, looked.owner, looked.number into refusal, owner, number
    from annals.look_at_step(
        of_generation, of_lease, of_owner, of_epoch, of_slot, of_partition, from_position
    ) as looked;
    if refusal = 0 then
        perform annals.write_step(
            of_generation, of_slot, of_partition, to_position, to_event, to_state, row_keys, row_values, has_indexes, entry_keys,
            entry_indexes, entries, version_keys, version_afters, version_up_tos, version_recorded, version_values, touched_keys,
            touched_positions, settled_keys, settled_positions, dead_letter_keys, parked_positions, dead_letter_events, parked_attempts,
            parked_moments, parked_causes
        );
    end if;
end
$$;

-- what is told of the newest version of a key that ends at or before a moment: nothing of one that is forgotten
create function annals.told_version(of_generation bigint, since bigint, of_key bytea, moment bigint)
returns table (up_to bigint, after bigint, recorded_at bigint, value bytea)
language sql stable as $$
    select newest.up_to, newest.after, newest.recorded_at, newest.value
    from (
        select version.up_to, version.after, version.recorded_at, version.value
        from annals.view_version as version
        where version.generation = of_generation and version.key = of_key and version.up_to <= moment
        order by version.up_to desc
        limit 1
    ) as newest
    where newest.value is not null or newest.up_to > since
$$;

-- keys from one on, up to but without another, that have a row or a version that is told, in order
create function annals.past_keys(of_generation bigint, since bigint, from_key bytea, to_key bytea, most bigint)
returns setof bytea
language plpgsql stable as $$
declare
    next_row bytea;
    next_version bytea;
    found_keys bigint := 0;
begin
    while found_keys < most loop
        select key into next_row from annals.view_row
        where generation = of_generation and key >= from_key and key < to_key order by key limit 1;
        select key into next_version from annals.view_version
        where generation = of_generation and key >= from_key and key < to_key order by key limit 1;
        exit when next_row is null and next_version is null;
        if next_row is not null and (next_version is null or next_row <= next_version) then
            return next next_row;
            found_keys := found_keys + 1;
            from_key := next_row || '\x00'::bytea;
        else
            if exists (select from annals.told_version(of_generation, since, next_version, since)) or exists (
                select from annals.view_version where generation = of_generation and key = next_version and up_to > since
            ) then
                return next next_version;
                found_keys := found_keys + 1;
            end if;
            from_key := next_version || '\x00'::bytea;
        end if;
    end loop;
end
$$;

-- keys from one on with a version that ends behind a position, up to and with another, in order. so many versions are looked at by where
-- they end, before it is better to ask key after key.
create function annals.keys_changed(of_generation bigint, behind bigint, last bigint, from_key bytea, most bigint)
returns setof bytea
language plpgsql stable as $$
declare
    looked_at constant integer := 16384;
    ending bytea[];
    next_key bytea := from_key;
    found_keys bigint := 0;
begin
    ending := array(
        select key from annals.view_version
        where generation = of_generation and up_to > behind and up_to <= last
        order by up_to
        limit looked_at
    );
    if cardinality(ending) < looked_at then
        return query
            select distinct changed.key from unnest(ending) as changed(key) where changed.key >= from_key order by 1 limit most;
        return;
    end if;
    while found_keys < most loop
        select key into next_key from annals.view_version
        where generation = of_generation and key >= next_key order by key limit 1;
        exit when next_key is null;
        if exists (
            select from annals.view_version
            where generation = of_generation and key = next_key and up_to > behind and up_to <= last
        ) then
            return next next_key;
            found_keys := found_keys + 1;
        end if;
        next_key := next_key || '\x00'::bytea;
    end loop;
end
$$;

-- clears away a little of the past that a generation has forgotten: of each key the newest version that ends before what is kept stays,
-- unless it says that there was no row. false when there is nothing left to do, or another does it.
create function annals.clear_history(most integer) returns boolean
language plpgsql volatile as $$
declare
    forgotten record;
    cleared bigint;
begin
    select id, cleared_to, history_since into forgotten
    from annals.view_generation
    where cleared_to < history_since and keeps <> 0 and phase <> 3
    order by id
    limit 1
    for no key update skip locked;
    if not found then
        return false;
    end if;
    -- all that end at the last of these positions together
    select max(older.up_to) into cleared
    from (
        select up_to from annals.view_version
        where generation = forgotten.id and up_to > forgotten.cleared_to and up_to <= forgotten.history_since
        order by up_to
        limit most
    ) as older;
    if cleared is not null then
        delete from annals.view_version as old
        using annals.view_version as newer
        where newer.generation = forgotten.id and newer.up_to > forgotten.cleared_to and newer.up_to <= cleared
            and old.generation = forgotten.id and old.key = newer.key and old.up_to < newer.up_to;
        delete from annals.view_version as removal
        where removal.generation = forgotten.id and removal.up_to > forgotten.cleared_to and removal.up_to <= cleared
            and removal.value is null
            and not exists (
                select from annals.view_version as newer
                where newer.generation = forgotten.id and newer.key = removal.key
                    and newer.up_to > removal.up_to and newer.up_to <= forgotten.history_since
            );
    end if;
    update annals.view_generation set cleared_to = coalesce(cleared, forgotten.history_since) where id = forgotten.id;
    return true;
end
$$;

-- clears away a little of a generation that was dropped, and at last the generation. false when there is nothing left to do, or another
-- does it.
create function annals.clear_generation(most integer) returns boolean
language plpgsql volatile as $$
declare
    dropped bigint;
begin
    select id into dropped from annals.view_generation where phase = 3 order by id limit 1 for update skip locked;
    if not found then
        return false;
    end if;
    delete from annals.view_row
    where ctid = any (array(select ctid from annals.view_row where generation = dropped limit most));
    if found then
        return true;
    end if;
    delete from annals.view_entry
    where ctid = any (array(select ctid from annals.view_entry where generation = dropped limit most));
    if found then
        return true;
    end if;
    delete from annals.view_version
    where ctid = any (array(select ctid from annals.view_version where generation = dropped limit most));
    if found then
        return true;
    end if;
    delete from annals.view_touched
    where ctid = any (array(select ctid from annals.view_touched where generation = dropped limit most));
    if found then
        return true;
    end if;
    delete from annals.view_parked
    where ctid = any (array(select ctid from annals.view_parked where generation = dropped limit most));
    if found then
        return true;
    end if;
    delete from annals.view_version
    where ctid = any (array(select ctid from annals.view_version where generation = dropped limit most));
    if found then
        return true;
    end if;
    delete from annals.view_generation where id = dropped;
    return true;
end
$$;

-- for people with psql
create view annals.readable_views as
select
    generation.id as generation,
    annals.shown('json', generation.view) as view,
    generation.version,
    case generation.phase when 0 then 'building' when 1 then 'live' else 'kept' end as phase,
    (select min(position) from annals.view_checkpoint where view_checkpoint.generation = generation.id) as position,
    (select count(*) from annals.view_parked where view_parked.generation = generation.id) as dead_letters
from annals.view_generation as generation
where generation.phase <> 3;

create view annals.readable_rows as
select
    annals.shown('json', generation.view) as view,
    generation.version,
    generation.id as generation,
    annals.shown('json', view_row.key) as key,
    annals.shown('json', view_row.value) as value
from annals.view_row
join annals.view_generation as generation on generation.id = view_row.generation
where generation.phase = 1;
