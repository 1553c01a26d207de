-- the tables of a log and of its read models, version 1.
--
-- times are microseconds since 1970. keys, entries, names and reasons of read models are bytes in
-- UTF-8, because they may hold what no text of PostgreSQL may; they are compared byte by byte.

create table annals.log (
    one smallint primary key check (one = 1),
    id uuid not null,
    created_at bigint not null
);

-- names one run of the server over one history. the table is unlogged: crash recovery, a promoted
-- standby and a restored backup find it empty, or made for another table of events, and the next
-- session gives it another id.
create unlogged table annals.incarnation (
    one smallint primary key check (one = 1),
    id uuid not null,
    relation oid not null
);

-- the categories whose kinds have keys of their own, at most 256: names without a category cannot
-- make it grow for ever. key 0 is all the others; no category holds a dash.
create table annals.category (
    key integer primary key,
    name text collate "C" not null unique
);

insert into annals.category (key, name) values (0, '-');

-- what an event is, without its content: one small number for category, type, schema version and
-- codec. key 0 is an event whose content was removed for good.
create table annals.kind (
    key integer primary key,
    type text collate "C" not null,
    schema_version bigint not null,
    codec text collate "C" not null,
    category integer not null,
    unique (type, schema_version, codec, category)
);

create index kind_by_category on annals.kind (category);

insert into annals.kind (key, type, schema_version, codec, category) values (0, '', 0, '', 0);

-- the version of a stream is that of its last event, which is never removed; a name may be here
-- that never had an event. status: 0 by its events (absent or active), 2 deleted, 3 tombstoned.
-- deleted_version is the version at the last deletion.
create table annals.stream (
    key bigint generated always as identity primary key,
    name text collate "C" not null unique,
    status smallint not null default 0,
    truncated_before bigint not null default 0,
    archived_before bigint not null default 0,
    deleted_version bigint not null default 0,
    deletions integer not null default 0
);

-- every change of a stream that is not an append, in commit order: the last key shows writers
-- whether the versions and statuses they have cached still hold. change_id makes a repeated change
-- a no-op; version, position and recorded_at are those of the moment. change: 0 delete, 1
-- tombstone, 2 truncate and 3 archive before a version.
create table annals.stream_change (
    key bigint primary key,
    stream bigint not null,
    is_deletion boolean not null,
    version bigint not null,
    position bigint not null,
    recorded_at bigint not null,
    change_id uuid not null,
    change smallint not null,
    before bigint not null,
    constraint stream_change_by_id unique (change_id)
);

create index stream_change_by_stream on annals.stream_change (stream);

-- an event removed for good keeps its row, of kind 0 and without content: its id stays known, its
-- position stays taken. tags are sorted, one a line; metadata is JSON in UTF-8. payload and
-- metadata are bytes because they may hold what no text of PostgreSQL may.
create table annals.event (
    position bigint primary key,
    stream bigint not null,
    version bigint not null,
    kind integer not null,
    append_index integer not null,
    append_events integer not null,
    occurred_at bigint not null,
    recorded_at bigint not null,
    id uuid not null,
    digest uuid not null,
    tags text collate "C",
    metadata bytea,
    payload bytea not null,
    constraint event_by_id unique (id),
    constraint event_by_stream unique (stream, version) include (position)
);

create index event_by_kind on annals.event (kind, position);

-- events by their tags. the number of a tag is a hash of it; readers compare the tag itself too.
create table annals.event_tag (
    tag bigint not null,
    position bigint not null,
    primary key (tag, position)
);

-- rows are written once and in order: nothing is gained by leaving room in the pages, and
-- statistics of the newest rows matter most.
alter table annals.event set (
    autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05
);
alter table annals.event_tag set (
    autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05
);

-- appends inside an application's own transaction, numbered and checked by a trigger at its commit;
-- no other transaction ever sees a row. what is lost in a crash was not committed.
create unlogged table annals.staged_append (
    number bigint generated always as identity primary key,
    staged_at timestamptz not null default clock_timestamp(),
    incarnation uuid not null,
    recorded bigint not null,
    streams bigint[] not null,
    kinds integer[] not null,
    occurred bigint[] not null,
    ids uuid[] not null,
    digests uuid[] not null,
    tags text[] not null,
    metadata bytea[] not null,
    payloads bytea[] not null,
    tag_hashes bigint[] not null,
    tag_events integer[] not null,
    expected_streams bigint[] not null,
    expected_codes smallint[] not null,
    expected_versions bigint[] not null,
    expected_writes boolean[] not null,
    items jsonb,
    checked_to bigint not null
);

create sequence annals.lease_epoch;

create table annals.lease (
    name bytea primary key,
    owner bytea not null,
    epoch bigint not null,
    expires_at bigint not null,
    is_released boolean not null
) with (fillfactor = 50);

-- phase: 0 building, 1 live, 2 kept, 3 dropped and not cleared yet. history: 0 none, 1 versions,
-- 2 bitemporal; before history_since it is forgotten, and cleared up to history_cleared_to.
-- event_types and indexes are JSON.
create table annals.view_generation (
    id bigint generated always as identity primary key,
    view bytea not null,
    version bigint not null,
    phase bigint not null,
    history bigint not null,
    inline boolean not null,
    partitions bigint not null,
    slots bigint not null,
    log uuid not null,
    started_at bigint not null,
    history_since bigint not null,
    history_cleared_to bigint not null default 0,
    event_types text not null,
    indexes text not null
);

create index view_generation_by_view on annals.view_generation (view, id);

-- entries: those of the indexes, in their order; null without indexes. room is left in the pages,
-- so that a changed row stays in its page.
create table annals.view_row (
    generation bigint not null,
    key bytea not null,
    entries bytea[],
    value bytea not null,
    primary key (generation, key)
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);

-- index: its place among the indexes of the generation, from 0.
create table annals.view_index_entry (
    generation bigint not null,
    index bigint not null,
    entry bytea not null,
    key bytea not null,
    primary key (generation, index, entry, key)
) with (autovacuum_vacuum_scale_factor = 0.05);

-- what a row was after the events after position `after`, up to `up_to`; a null value: no row.
create table annals.view_row_version (
    generation bigint not null,
    key bytea not null,
    up_to bigint not null,
    after bigint not null,
    recorded_at bigint not null,
    value bytea,
    constraint view_row_version_by_key primary key (generation, key, up_to)
);

create index view_row_version_by_end on annals.view_row_version (generation, up_to);

create table annals.view_touched (
    generation bigint not null,
    key bytea not null,
    position bigint not null,
    primary key (generation, key, position)
);

create table annals.view_dead_letter (
    generation bigint not null,
    key bytea not null,
    partition bigint not null,
    position bigint not null,
    event uuid not null,
    attempts bigint not null,
    dead_since bigint not null,
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

-- has_key: false when the decision is about all keys, and the key is empty then.
create table annals.view_skip_decision (
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

-- inline views: the version of its stream that a key's row holds, also when there is no row any
-- more. 0: not written yet.
create table annals.view_stream_version (
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

-- a batch of appends as `append` takes it: of each event the number of its append, of each append
-- that relies on the version of a stream the stream and that version, and the conditions, each
-- checked up to its own position, the least of which is least_checked.
create type annals.append_batch as (
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
    least_checked bigint
);

-- rows of inline views that are written with a batch: of each the number of its append, the stream
-- versions before and after it, and its value; its entries and its history by its place in the
-- list, the history also by the place of the event in the batch.
create type annals.inline_rows as (
    appends integer[],
    generations bigint[],
    keys bytea[],
    froms bigint[],
    tos bigint[],
    new_values bytea[],
    have_indexes boolean[],
    are_bitemporal boolean[],
    entry_rows integer[],
    entry_indexes bigint[],
    entries bytea[],
    version_rows integer[],
    version_events integer[],
    version_values bytea[]
);

-- everything that a step of a view changes besides its checkpoint
create type annals.view_changes as (
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
    letter_keys bytea[],
    letter_positions bigint[],
    letter_events uuid[],
    letter_attempts bigint[],
    letter_moments bigint[],
    letter_causes bytea[]
);
