-- version 4: read models: generations, their rows and their past, how far they have come, what is set aside, and who works on them.

-- the numbers that were given last; what is dropped or given back does not return them.
create table annals_numbers (
    one integer primary key check (one = 1),
    generation integer not null,
    epoch integer not null
) strict;

insert into annals_numbers (one, generation, epoch) values (1, 0, 0);

-- phase: 0 building, 1 live, 2 kept, 3 dropped and not cleared away yet. keeps: 0 the present, 1 history, 2 also what touched a key.
-- the past before history_since is forgotten, and cleared away up to cleared_to, and of what
-- ends at the next position before cleared_key. handles and indexes are JSON.
create table annals_view_generations (
    id integer primary key,
    view text not null,
    version integer not null,
    phase integer not null,
    keeps integer not null,
    partitions integer not null,
    slots integer not null,
    log blob not null,
    begun_at integer not null,
    history_since integer not null,
    cleared_to integer not null default 0,
    cleared_key text not null default '',
    handles text not null,
    indexes text not null
) strict;

create index annals_view_generations_by_view on annals_view_generations (view, id);

-- entries: those of the indexes in their order, each with its length before it in four bytes, little end first; null without indexes.
create table annals_view_rows (
    generation integer not null,
    key text not null,
    entries blob,
    value blob not null,
    primary key (generation, key)
) strict, without rowid;

-- index: its place among the indexes of the generation, from 0.
create table annals_view_entries (
    generation integer not null,
    "index" integer not null,
    entry text not null,
    key text not null,
    primary key (generation, "index", entry, key)
) strict, without rowid;

-- what a row was after the events behind `after`, up to `up_to`; a null value: there was none. in the order of the ends, so that what
-- is new stands together: in the order of the keys each step would write a page of its own for almost every row.
create table annals_view_versions (
    generation integer not null,
    key text not null,
    up_to integer not null,
    after integer not null,
    recorded_at integer not null,
    value blob,
    primary key (generation, up_to, key)
) strict, without rowid;

create unique index annals_view_versions_by_key on annals_view_versions (generation, key, up_to);

create table annals_view_touched (
    generation integer not null,
    key text not null,
    position integer not null,
    primary key (generation, key, position)
) strict, without rowid;

create table annals_view_parked (
    generation integer not null,
    key text not null,
    partition integer not null,
    position integer not null,
    event blob not null,
    attempts integer not null,
    parked_at integer not null,
    cause text,
    primary key (generation, key, partition, position)
) strict, without rowid;

create table annals_view_checkpoints (
    generation integer not null,
    slot integer not null,
    partition integer not null,
    position integer not null,
    event blob,
    state blob not null,
    primary key (generation, slot, partition)
) strict, without rowid;

-- has_key: 0 when it is about all keys, and the key is empty then.
create table annals_view_verdicts (
    view text not null,
    partition integer not null,
    position integer not null,
    has_key integer not null,
    key text not null,
    event blob not null,
    decided_at integer not null,
    reason text not null,
    primary key (view, partition, position, has_key, key)
) strict, without rowid;

create table annals_leases (
    name text primary key,
    owner text not null,
    epoch integer not null,
    ends_at integer not null,
    given_back integer not null
) strict, without rowid;

create view annals_readable_views as
select
    generations.id as generation,
    view,
    version,
    case phase when 0 then 'building' when 1 then 'live' else 'kept' end as phase,
    (select min(position) from annals_view_checkpoints where generation = generations.id) as position,
    (select count(*) from annals_view_parked where generation = generations.id) as dead_letters
from annals_view_generations as generations
where phase <> 3;

create view annals_readable_rows as
select view, version, generation, rows.key, cast(rows.value as text) as value
from annals_view_rows as rows
join annals_view_generations as generations on generations.id = rows.generation
where phase = 1;
