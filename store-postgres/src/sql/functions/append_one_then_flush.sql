-- appends one event beside others who append too, and gives its position and version; null when it
-- has to be looked at again by `append`: nothing was written. what else others appended does not
-- matter to it, so unlike `append` it costs the same however much that is. it releases the log
-- before the flush, as `append_then_flush` does.
--
-- known_event is the event at known_head, the last that the caller saw. relies says that the stream
-- must be as the caller knows it, before at_version; else the event comes after what is there.
--
-- calls without an answer are expressions, which cost less than statements.
--
-- while it has the log, every other append waits, so it looks and inserts by one statement, and
-- returns from no function but `lock_log`. what it sets ends with its first commit, after the log
-- is released; a procedure with settings of its own may not commit. the search path is that of the
-- other functions that call `lock_log`, whose plans are made again whenever it differs.
create or replace procedure annals.append_one_then_flush(
    known_incarnation pg_catalog.uuid,
    known_head pg_catalog.int8,
    known_event pg_catalog.uuid,
    known_changes pg_catalog.int8,
    to_stream pg_catalog.int8,
    at_version pg_catalog.int8,
    relies pg_catalog.bool,
    of_kind pg_catalog.int4,
    occurred pg_catalog.int8,
    recorded pg_catalog.int8,
    with_id pg_catalog.uuid,
    with_digest pg_catalog.uuid,
    with_tags pg_catalog.text,
    with_metadata pg_catalog.bytea,
    with_payload pg_catalog.bytea,
    tag_hashes pg_catalog.int8[],
    inout given pg_catalog.int8,
    inout given_version pg_catalog.int8
)
language plpgsql
as $$
declare
    is_locked pg_catalog.bool;
    is_logged pg_catalog.bool;
begin
    set local synchronous_commit = off;
    set local search_path = pg_catalog, pg_temp;
    set local enable_seqscan = off;
    is_locked := annals.lock_log() is not null;
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
    commit;
    if given is not null then
        is_logged := pg_catalog.pg_logical_emit_message(
            true, 'annals', ''::pg_catalog.text
        ) is not null;
    end if;
end
$$;
