-- appends a batch that the writer has checked against the log up to known_head and known_changes,
-- all of its appends that still hold.
--
-- is_done is false when the writer knows too little: nothing was written, and it looks again. first
-- is the position of the first event. moved_… are the streams that others appended to since
-- known_head; skipped are the appends that do not hold because of that: nothing of them was
-- written. the answer is small, so that a client that does not read it delays no other.
create or replace function annals.append(
    known_incarnation uuid,
    known_head bigint,
    known_event uuid,
    known_changes bigint,
    batch annals.append_batch,
    out is_done boolean,
    out first bigint,
    out moved_streams bigint[],
    out moved_versions bigint[],
    out skipped integer[]
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    log record;
    is_locked boolean;
begin
    is_done := false;
    -- Evaluated as an expression, which costs less than a statement.
    is_locked := annals.lock_log() is not null;
    select * into log from annals.log_head();
    first := log.head + 1;
    if log.incarnation is distinct from known_incarnation or log.changes <> known_changes
        or log.head < known_head or log.head - known_head > 10000
    then
        return;
    end if;
    if log.head = known_head then
        if log.head_event is distinct from known_event then
            return;
        end if;
    else
        if known_head > 0 and not exists (
            select from annals.event where position = known_head and id = known_event
        ) then
            return;
        end if;
        select array_agg(moved.stream), array_agg(moved.version)
        into moved_streams, moved_versions
        from (
            select event.stream, max(event.version) as version
            from annals.event
            where event.position > known_head
            group by event.stream
        ) as moved;
        if cardinality(moved_streams) > 400 then
            moved_streams := null;
            moved_versions := null;
            return;
        end if;
    end if;
    if coalesce(batch.least_checked >= log.head, true)
        and not coalesce((batch.streams || batch.relying_streams) && moved_streams, false)
    then
        insert into annals.event (
            position, stream, version, kind, append_index, append_events, occurred_at, recorded_at,
            id, digest, tags, metadata, payload
        )
        select
            log.head + given.place, given.stream, given.version, given.kind, given.index,
            given.count, given.occurred, greatest(given.recorded, log.recorded), given.id,
            given.digest, given.tags, given.metadata, given.payload
        from unnest(
            batch.streams, batch.versions, batch.kinds, batch.indexes, batch.counts, batch.occurred,
            batch.recorded, batch.ids, batch.digests, batch.tags, batch.metadata, batch.payloads
        ) with ordinality as given(
            stream, version, kind, index, count, occurred, recorded, id, digest, tags, metadata,
            payload, place
        );
        if cardinality(batch.tag_hashes) > 0 then
            insert into annals.event_tag (tag, position)
            select given.hash, log.head + given.event
            from unnest(batch.tag_hashes, batch.tag_events) as given(hash, event);
        end if;
    else
        select array_agg(distinct refused.append) into skipped
        from (
            select relying.append
            from unnest(batch.relying_appends, batch.relying_streams, batch.relying_versions)
                as relying(append, stream, version)
            join unnest(moved_streams, moved_versions) as moved(stream, version)
                on moved.stream = relying.stream and moved.version > relying.version
            union all
            select (condition.wanted -> 'append')::integer
            from jsonb_array_elements(batch.conditions) as condition(wanted)
            where (condition.wanted -> 'after')::bigint < log.head
                and annals.first_match(
                    condition.wanted -> 'items', (condition.wanted -> 'after')::bigint, log.head
                ) is not null
        ) as refused;
        if cardinality(skipped) > 1000 then
            skipped := null;
            return;
        end if;
        with numbered as materialized (
            select
                given.*,
                min(given.version) over (partition by given.stream) - 1 as planned_before
            from unnest(
                batch.appends, batch.streams, batch.versions, batch.kinds, batch.indexes,
                batch.counts, batch.occurred, batch.recorded, batch.ids, batch.digests, batch.tags,
                batch.metadata, batch.payloads
            ) with ordinality as given(
                append, stream, version, kind, index, count, occurred, recorded, id, digest, tags,
                metadata, payload, place
            )
        ), rows as materialized (
            select
                numbered.*,
                row_number() over (order by numbered.place) as kept_place,
                greatest(moved.version, numbered.planned_before) as version_before,
                row_number() over (
                    partition by numbered.stream order by numbered.place
                ) as stream_place
            from numbered
            left join unnest(moved_streams, moved_versions) as moved(stream, version)
                on moved.stream = numbered.stream
            where skipped is null or numbered.append <> all (skipped)
        ), written as (
            insert into annals.event (
                position, stream, version, kind, append_index, append_events, occurred_at,
                recorded_at, id, digest, tags, metadata, payload
            )
            select
                log.head + kept_place, stream, version_before + stream_place, kind, index, count,
                occurred, greatest(recorded, log.recorded), id, digest, tags, metadata, payload
            from rows
        )
        insert into annals.event_tag (tag, position)
        select given.hash, log.head + rows.kept_place
        from unnest(batch.tag_hashes, batch.tag_events) as given(hash, event)
        join rows on rows.place = given.event;
    end if;
    if cardinality(batch.revived) > 0 then
        update annals.stream set status = 0, truncated_before = 0
        where key = any (batch.revived) and status = 2 and exists (
            select from annals.event
            where event.stream = stream.key and event.position > log.head
        );
    end if;
    is_done := true;
end
$$;
