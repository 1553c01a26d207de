-- version 1: the log, its dictionaries, and what became of each stream. everything is named annals_…, so that an application can keep its own tables in the same file.

create table annals_log (
    one integer primary key check (one = 1),
    id blob not null check (length(id) = 16),
    created_at integer not null
) strict;

-- the categories by which kinds are told apart; bounded, so that names without a real category cannot make it grow for ever.
-- key 0 stands for all the others; no category holds a dash.
create table annals_categories (
    key integer primary key,
    name text not null unique
) strict;

insert into annals_categories (key, name) values (0, '-');

-- what an event is, without its content: one small number for category, type, schema version and codec.
-- key 0 stands for an event that was removed for good.
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
-- status: 0 as its events say (absent or active), 2 deleted, 3 tombstoned. deletions counts its rows in annals_deletions.
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

-- an event removed for good keeps its row, of kind 0 and without content: its id stays known, its place stays taken.
-- metadata begins with a byte: 1 when a correlation id of 16 bytes follows, 2 for a causation id, 3 for both in this order; behind
-- them stands JSON, or nothing. times are microseconds since 1970; tags are sorted, one a line; small columns come first, so that a large payload hides none.
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
    metadata blob,
    payload blob not null
) strict;

create unique index annals_events_by_id on annals_events (id);
create unique index annals_events_by_stream on annals_events (stream, version);
create index annals_events_by_kind on annals_events (kind);
