-- version 1: the log, its dictionaries, and what became of each stream.

create table annals.log (
    one smallint primary key check (one = 1),
    id uuid not null,
    created_at bigint not null
);

-- the categories by which kinds are told apart; bounded, so that names without a real category cannot make it grow for ever.
-- key 0 stands for all the others; no category holds a dash.
create table annals.category (
    key integer primary key,
    name text collate "C" not null unique
);

insert into annals.category (key, name) values (0, '-');

-- what an event is, without its content: one small number for category, type, schema version and codec.
-- key 0 stands for an event that was removed for good.
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

-- a stream's version is not here: it is that of its last event, which is never removed. a name may be here that never had an event.
-- status: 0 as its events say (absent or active), 2 deleted, 3 tombstoned. emptied_at is the version at the last deletion.
create table annals.stream (
    key bigint generated always as identity primary key,
    name text collate "C" not null unique,
    status smallint not null default 0,
    truncated_before bigint not null default 0,
    archived_before bigint not null default 0,
    emptied_at bigint not null default 0,
    deletions integer not null default 0
);

-- every change of a stream that is not an append, in the order of their commits: the last key tells writers whether what they know of
-- streams still holds. version, position and recorded_at are those of the moment; only what emptied the stream is a deletion.
create table annals.stream_change (
    key bigint primary key,
    stream bigint not null,
    is_deletion boolean not null,
    version bigint not null,
    position bigint not null,
    recorded_at bigint not null
);

create index stream_change_by_stream on annals.stream_change (stream);

-- an event removed for good keeps its row, of kind 0 and without content: its id stays known, its place stays taken.
-- times are microseconds since 1970; tags are sorted, one a line; metadata is JSON in UTF-8. payload and metadata are bytes because
-- they may hold what no text of PostgreSQL may.
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

-- events by their tags. the number of a tag is a hash of it; who reads looks at the tag itself as well.
create table annals.event_tag (
    tag bigint not null,
    position bigint not null,
    primary key (tag, position)
);

-- rows are written once and in order: nothing is gained by leaving room in the pages, and statistics of the newest rows matter most.
alter table annals.event set (autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);
alter table annals.event_tag set (autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

-- for people with psql: bytes that are no JSON are shown as they are, in hex
create function annals.shown(codec text, content bytea) returns text
language plpgsql immutable parallel safe as $$
begin
    if content is null then
        return null;
    end if;
    if codec = 'json' then
        return convert_from(content, 'UTF8');
    end if;
    return '\x' || encode(content, 'hex');
exception when character_not_in_repertoire or untranslatable_character then
    return '\x' || encode(content, 'hex');
end
$$;

create view annals.readable_events as
select
    event.position,
    stream.name as stream,
    event.version,
    kind.type,
    kind.schema_version,
    annals.shown(kind.codec, event.payload) as payload,
    string_to_array(event.tags, E'\n') as tags,
    annals.shown('json', event.metadata) as metadata,
    timestamptz 'epoch' + event.occurred_at * interval '1 microsecond' as occurred_at,
    timestamptz 'epoch' + event.recorded_at * interval '1 microsecond' as recorded_at,
    event.id
from annals.event
join annals.kind on kind.key = event.kind
join annals.stream on stream.key = event.stream
where event.kind <> 0;

create view annals.readable_streams as
select
    stream.name as stream,
    coalesce((select max(event.version) from annals.event where event.stream = stream.key), 0) as version,
    case stream.status when 2 then 'deleted' when 3 then 'tombstoned' else 'active' end as status,
    stream.truncated_before,
    stream.archived_before
from annals.stream
where stream.status <> 0 or exists (select from annals.event where event.stream = stream.key);
