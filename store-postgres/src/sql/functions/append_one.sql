-- appends one event to a log that is as the writer knows it, and gives its position; null when it
-- is not: nothing was written, and it is a case for `append`. without arrays, which cost more than
-- the insert of an event, and by one statement that looks and inserts.
create or replace function annals.append_one(
    known_incarnation uuid,
    known_head bigint,
    known_event uuid,
    known_changes bigint,
    to_stream bigint,
    at_version bigint,
    of_kind integer,
    occurred bigint,
    recorded bigint,
    with_id uuid,
    with_digest uuid,
    with_tags text,
    with_metadata bytea,
    with_payload bytea,
    tag_hashes bigint[]
) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
    is_locked boolean;
    given bigint;
begin
    -- Evaluated as an expression, which costs less than a statement.
    is_locked := annals.lock_log() is not null;
    insert into annals.event (
        position, stream, version, kind, append_index, append_events, occurred_at, recorded_at,
        id, digest, tags, metadata, payload
    )
    select
        known_head + 1, to_stream, at_version, of_kind, 0, 1, occurred,
        greatest(recorded, head.recorded_at, change.recorded_at), with_id, with_digest, with_tags,
        with_metadata, with_payload
    from annals.incarnation as run
    left join lateral (
        select event.position, event.id, event.recorded_at
        from annals.event
        order by event.position desc
        limit 1
    ) as head on true
    left join lateral (
        select stream_change.key, stream_change.recorded_at
        from annals.stream_change
        order by stream_change.key desc
        limit 1
    ) as change on true
    where run.one = 1
        and run.relation = 'annals.event'::regclass::oid
        and run.id = known_incarnation
        and coalesce(change.key, 0) = known_changes
        and coalesce(head.position, 0) = known_head
        and head.id is not distinct from known_event
    returning event.position into given;
    if given is not null and cardinality(tag_hashes) > 0 then
        insert into annals.event_tag (tag, position)
        select tag.hash, given from unnest(tag_hashes) as tag(hash);
    end if;
    return given;
end
$$;
