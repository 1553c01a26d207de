-- appends one event beside others who append too, and gives its position and version; null when it
-- has to be looked at again by `append`: nothing was written. what else others appended does not
-- matter to it, so unlike `append` it costs the same however much that is.
--
-- known_event is the event at known_head, the last that the caller saw. relies says that the stream
-- must be as the caller knows it, before at_version; else the event comes after what is there.
create or replace function annals.append_one_beside(
    known_incarnation uuid,
    known_head bigint,
    known_event uuid,
    known_changes bigint,
    to_stream bigint,
    at_version bigint,
    relies boolean,
    of_kind integer,
    occurred bigint,
    recorded bigint,
    with_id uuid,
    with_digest uuid,
    with_tags text,
    with_metadata bytea,
    with_payload bytea,
    tag_hashes bigint[],
    out given bigint,
    out given_version bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
    perform annals.lock_log();
    insert into annals.event (
        position, stream, version, kind, append_index, append_events, occurred_at, recorded_at,
        id, digest, tags, metadata, payload
    )
    select
        coalesce(head.position, 0) + 1, to_stream, greatest(at_version, newest.version + 1),
        of_kind, 0, 1, occurred, greatest(recorded, head.recorded_at, change.recorded_at), with_id,
        with_digest, with_tags, with_metadata, with_payload
    from annals.incarnation as run
    left join lateral (
        select event.position, event.recorded_at
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
    left join lateral (
        select event.version
        from annals.event
        where event.stream = to_stream and event.version >= at_version
        order by event.version desc
        limit 1
    ) as newest on true
    where run.one = 1
        and run.relation = 'annals.event'::regclass::oid
        and run.id = known_incarnation
        and coalesce(change.key, 0) = known_changes
        and (newest.version is null or not relies)
        and (
            known_head = 0
            or exists (
                select from annals.event
                where event.position = known_head and event.id = known_event
            )
        )
    returning event.position, event.version into given, given_version;
    if given is not null and cardinality(tag_hashes) > 0 then
        insert into annals.event_tag (tag, position)
        select tag.hash, given from unnest(tag_hashes) as tag(hash);
    end if;
end
$$;
