-- version 1: every table of the first release. all names begin with annals_, so that an application
-- can keep its own tables in the same file.

create table annals_log (
    one integer primary key check (one = 1),
    id blob not null check (length(id) = 16),
    created_at integer not null
) strict;

-- the categories that have kinds of their own; bounded, so that names without a real category
-- cannot make the table grow for ever.
-- key 0 is for all the others; no category holds a dash.
create table annals_categories (
    key integer primary key,
    name text not null unique
) strict;

insert into annals_categories (key, name) values (0, '-');

-- what an event is, without its content: one small number for category, type, schema version and
-- codec.
-- key 0 is the kind of an archived event.
create table annals_kinds (
    key integer primary key,
    type text not null,
    schema_version integer not null,
    codec text not null,
    category integer not null,
    unique (type, schema_version, codec, category)
) strict;

create index annals_kinds_by_category on annals_kinds (category);

insert into annals_kinds (key, type, schema_version, codec, category) values (0, '', 0, '', 0);

-- a stream's version is not here: it is that of its last event, which is never removed.
-- status: 0 as its events say (absent or active), 2 deleted, 3 tombstoned. deletions counts its
-- rows in annals_deletions.
create table annals_streams (
    key integer primary key,
    name text not null unique,
    status integer not null default 0,
    truncated_before integer not null default 0,
    archived_before integer not null default 0,
    deletions integer not null default 0
) strict;

create table annals_deletions (
    key integer primary key,
    stream integer not null,
    version integer not null,
    position integer not null,
    recorded_at integer not null
) strict;

create index annals_deletions_by_stream on annals_deletions (stream);

-- changes of streams that were done, by their ids: a repetition changes nothing.
-- change: 0 delete, 1 tombstone, 2 truncate, 3 archive; before: the version of the last two, else
-- 0.
create table annals_stream_changes (
    id blob primary key,
    stream integer not null,
    change integer not null,
    before integer not null
) strict, without rowid;

-- an archived event keeps its row, of kind 0 and without content: its id, version and position stay
-- taken.
-- times are microseconds since 1970; tags are sorted, one a line; metadata is JSON; small columns
-- come first, so that none is in the overflow of a large payload.
create table annals_events (
    position integer primary key,
    stream integer not null,
    version integer not null,
    kind integer not null,
    append_index integer not null,
    append_events integer not null,
    occurred_at integer not null,
    recorded_at integer not null,
    id blob not null,
    digest blob not null,
    tags text,
    metadata text,
    payload blob not null
) strict;

create unique index annals_events_by_id on annals_events (id);
create unique index annals_events_by_stream on annals_events (stream, version);
create index annals_events_by_kind on annals_events (kind);

create table annals_tags (
    key integer primary key,
    name text not null unique
) strict;

create table annals_event_tags (
    tag integer not null,
    position integer not null,
    primary key (tag, position)
) strict, without rowid;

create table annals_snapshots (
    key integer primary key,
    stream integer not null,
    fold text not null,
    fold_version integer not null,
    version integer not null,
    codec text not null,
    payload blob not null,
    unique (stream, fold, fold_version, version)
) strict;

-- the last generation id and lease epoch that were given out; neither is ever used twice.
create table annals_counters (
    one integer primary key check (one = 1),
    generation integer not null,
    epoch integer not null
) strict;

insert into annals_counters (one, generation, epoch) values (1, 0, 0);

-- phase: 0 building, 1 live, 2 kept, 3 dropped and not purged yet. history: 0 none, 1 versions, 2
-- bitemporal.
-- history before history_since is forgotten, and purged up to purged_to, and of what ends at the
-- next position up to but without purged_key.
-- handles and indexes are JSON.
create table annals_view_generations (
    id integer primary key,
    view text not null,
    version integer not null,
    phase integer not null,
    history integer not null,
    partitions integer not null,
    slots integer not null,
    log blob not null,
    begun_at integer not null,
    history_since integer not null,
    purged_to integer not null default 0,
    purged_key text not null default '',
    handles text not null,
    indexes text not null,
    inline integer not null
) strict;

create index annals_view_generations_by_view on annals_view_generations (view, id);

-- entries: those of the indexes in their order, each after its length as four bytes, little end
-- first; null without indexes.
create table annals_view_rows (
    generation integer not null,
    key text not null,
    entries blob,
    value blob not null,
    primary key (generation, key)
) strict, without rowid;

-- index: the number of the index in the generation, from 0.
create table annals_view_entries (
    generation integer not null,
    "index" integer not null,
    entry text not null,
    key text not null,
    primary key (generation, "index", entry, key)
) strict, without rowid;

-- the value of a row after the events in (after, up_to]; null when there was no row. in the order
-- of up_to, so that new versions
-- share pages: in the order of the keys each commit would write a page for almost every row.
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

-- the stream version that an inline row includes, also where there is no row any more.
create table annals_view_stream_versions (
    generation integer not null,
    key text not null,
    version integer not null,
    primary key (generation, key)
) strict, without rowid;

create table annals_view_dead_letters (
    generation integer not null,
    key text not null,
    partition integer not null,
    position integer not null,
    event blob not null,
    attempts integer not null,
    dead_since integer not null,
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

-- has_key: 0 when the decision is about all keys; key is empty then.
create table annals_view_skips (
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
    expires_at integer not null,
    released integer not null
) strict, without rowid;

create view annals_readable_events as
select
    events.position,
    streams.name as stream,
    events.version,
    kinds.type,
    kinds.schema_version,
    case when kinds.codec = 'json' then cast(events.payload as text) else kinds.codec || ':' || hex(events.payload) end as payload,
    replace(events.tags, char(10), ' ') as tags,
    strftime('%Y-%m-%dT%H:%M:%S', (events.occurred_at - (events.occurred_at % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch')
        || printf('.%06dZ', (events.occurred_at % 1000000 + 1000000) % 1000000) as occurred_at,
    strftime('%Y-%m-%dT%H:%M:%S', (events.recorded_at - (events.recorded_at % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch')
        || printf('.%06dZ', (events.recorded_at % 1000000 + 1000000) % 1000000) as recorded_at,
    lower(hex(events.id)) as id,
    metadata
from annals_events as events
join annals_streams as streams on streams.key = events.stream
join annals_kinds as kinds on kinds.key = events.kind
where events.kind <> 0;

create view annals_readable_streams as
select
    name as stream,
    coalesce((select max(version) from annals_events where stream = streams.key), 0) as version,
    case status when 2 then 'deleted' when 3 then 'tombstoned' else 'active' end as status,
    truncated_before,
    archived_before
from annals_streams as streams
where status <> 0 or exists (select 1 from annals_events where stream = streams.key);

create view annals_readable_views as
select
    generations.id as generation,
    view,
    version,
    case phase when 0 then 'building' when 1 then 'live' else 'kept' end as phase,
    (select min(position) from annals_view_checkpoints where generation = generations.id) as position,
    (select count(*) from annals_view_dead_letters where generation = generations.id) as dead_letters
from annals_view_generations as generations
where phase <> 3;

create view annals_readable_rows as
select view, version, generation, rows.key, cast(rows.value as text) as value
from annals_view_rows as rows
join annals_view_generations as generations on generations.id = rows.generation
where phase = 1;
