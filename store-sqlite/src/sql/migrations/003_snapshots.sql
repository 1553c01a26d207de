-- version 3: snapshots beside the log, and views for people with the sqlite3 shell.

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
    case when substr(metadata, 1, 1) in (x'01', x'03') then lower(hex(substr(metadata, 2, 16))) end as correlation,
    case substr(metadata, 1, 1)
        when x'02' then lower(hex(substr(metadata, 2, 16)))
        when x'03' then lower(hex(substr(metadata, 18, 16)))
    end as causation,
    nullif(cast(substr(metadata, case substr(metadata, 1, 1) when x'00' then 2 when x'03' then 34 else 18 end) as text), '') as metadata
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
