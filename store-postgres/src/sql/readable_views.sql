-- the log and its read models for readers with psql
create or replace view annals.readable_events as
select
    event.position,
    stream.name as stream,
    event.version,
    kind.type,
    kind.schema_version,
    annals.as_text(kind.codec, event.payload) as payload,
    pg_catalog.string_to_array(event.tags, E'\n') as tags,
    annals.as_text('json', event.metadata) as metadata,
    timestamptz 'epoch' + event.occurred_at * interval '1 microsecond' as occurred_at,
    timestamptz 'epoch' + event.recorded_at * interval '1 microsecond' as recorded_at,
    event.id
from annals.event
join annals.kind on kind.key = event.kind
join annals.stream on stream.key = event.stream
where event.kind > 0;

create or replace view annals.readable_streams as
select
    stream.name as stream,
    coalesce(
        (select pg_catalog.max(event.version) from annals.event where event.stream = stream.key), 0
    ) as version,
    case stream.status
        when 2 then 'deleted'
        when 3 then 'tombstoned'
        else 'active'
    end as status,
    stream.truncated_before,
    stream.archived_before
from annals.stream
where stream.status <> 0
    or exists (select from annals.event where event.stream = stream.key);

create or replace view annals.readable_views as
select
    generation.id as generation,
    annals.as_text('json', generation.view) as view,
    generation.version,
    case generation.phase when 0 then 'building' when 1 then 'live' else 'kept' end as phase,
    (
        select pg_catalog.min(position) from annals.view_checkpoint
        where view_checkpoint.generation = generation.id
    ) as position,
    (
        select pg_catalog.count(*) from annals.view_dead_letter
        where view_dead_letter.generation = generation.id
    ) as dead_letters
from annals.view_generation as generation
where generation.phase <> 3;

create or replace view annals.readable_rows as
select
    annals.as_text('json', generation.view) as view,
    generation.version,
    generation.id as generation,
    annals.as_text('json', view_row.key) as key,
    annals.as_text('json', view_row.value) as value
from annals.view_row
join annals.view_generation as generation on generation.id = view_row.generation
where generation.phase = 1;
