-- version 9: many writers, and one.
--
-- a plan that was made while the tables were empty looks through all of them, and a connection keeps it until their rows are counted: of
-- several processes that began with an empty log, each spent most of the section with that. here, what an index finds is found by it.

alter function annals.first_match set enable_seqscan = off;
alter function annals.resolve_streams set enable_seqscan = off;
alter function annals.resolve_streams set enable_hashjoin = off;
alter function annals.resolve_streams set enable_mergejoin = off;
alter function annals.change_stream set enable_seqscan = off;
alter function annals.change_stream set enable_hashjoin = off;
alter function annals.change_stream set enable_mergejoin = off;
alter function annals.number_staged set enable_seqscan = off;
alter function annals.number_staged set enable_hashjoin = off;
alter function annals.number_staged set enable_mergejoin = off;
alter function annals.append_with_rows set enable_seqscan = off;
alter function annals.append_with_rows set enable_hashjoin = off;
alter function annals.append_with_rows set enable_mergejoin = off;

-- as before. only where others have appended to one of the streams of this batch is each event looked at.
create or replace function annals.append(
    known_head bigint,
    known_changes bigint,
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
    least_behind bigint,
    out is_done boolean,
    out first bigint,
    out changes bigint,
    out moved_streams bigint[],
    out moved_versions bigint[],
    out skips integer[]
)
language plpgsql volatile set enable_seqscan = off as $$
#variable_conflict use_column
declare
    head bigint;
    latest bigint;
begin
    is_done := false;
    perform annals.enter_section();
    select log_head.head, log_head.changes, log_head.recorded into head, changes, latest from annals.log_head() as log_head;
    first := head + 1;
    if changes <> known_changes or head - known_head > 10000 then
        return;
    end if;
    if head > known_head then
        select array_agg(moved.stream), array_agg(moved.version) into moved_streams, moved_versions
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
    if coalesce(least_behind >= head, true) and not coalesce((streams || relying_streams) && moved_streams, false) then
        insert into annals.event (
            position, stream, version, kind, append_index, append_events, occurred_at, recorded_at, id, digest, tags, metadata, payload
        )
        select
            head + given.place, given.stream, given.version, given.kind, given.index, given.count, given.occurred, greatest(given.recorded, latest),
            given.id, given.digest, given.tags, given.metadata, given.payload
        from unnest(
            streams, versions, kinds, indexes, counts, occurred, recorded, ids, digests, tags, metadata, payloads
        ) with ordinality as given(
            stream, version, kind, index, count, occurred, recorded, id, digest, tags, metadata, payload, place
        );
        if cardinality(tag_hashes) > 0 then
            insert into annals.event_tag (tag, position)
            select given.hash, head + given.event from unnest(tag_hashes, tag_events) as given(hash, event);
        end if;
    else
        select array_agg(distinct refused.append) into skips
        from (
            select relying.append
            from unnest(relying_appends, relying_streams, relying_versions) as relying(append, stream, version)
            join unnest(moved_streams, moved_versions) as moved(stream, version)
                on moved.stream = relying.stream and moved.version > relying.version
            union all
            select (condition.wanted -> 'append')::integer
            from jsonb_array_elements(conditions) as condition(wanted)
            where (condition.wanted -> 'behind')::bigint < head
                and annals.first_match(condition.wanted -> 'items', (condition.wanted -> 'behind')::bigint, head) is not null
        ) as refused;
        if cardinality(skips) > 1000 then
            skips := null;
            return;
        end if;
        with numbered as materialized (
            select given.*, min(given.version) over (partition by given.stream) - 1 as planned_before
            from unnest(
                appends, streams, versions, kinds, indexes, counts, occurred, recorded, ids, digests, tags, metadata, payloads
            ) with ordinality as given(
                append, stream, version, kind, index, count, occurred, recorded, id, digest, tags, metadata, payload, place
            )
        ), rows as materialized (
            select
                numbered.*,
                row_number() over (order by numbered.place) as kept_place,
                greatest(moved.version, numbered.planned_before) as version_before,
                row_number() over (partition by numbered.stream order by numbered.place) as stream_place
            from numbered
            left join unnest(moved_streams, moved_versions) as moved(stream, version) on moved.stream = numbered.stream
            where skips is null or numbered.append <> all (skips)
        ), written as (
            insert into annals.event (
                position, stream, version, kind, append_index, append_events, occurred_at, recorded_at, id, digest, tags, metadata, payload
            )
            select
                head + kept_place, stream, version_before + stream_place, kind, index, count, occurred, greatest(recorded, latest),
                id, digest, tags, metadata, payload
            from rows
        )
        insert into annals.event_tag (tag, position)
        select given.hash, head + rows.kept_place
        from unnest(tag_hashes, tag_events) as given(hash, event)
        join rows on rows.place = given.event;
    end if;
    if cardinality(revived) > 0 then
        update annals.stream set status = 0, truncated_before = 0
        where key = any (revived) and status = 2
            and exists (select from annals.event where event.stream = stream.key and event.position > head);
    end if;
    is_done := true;
end
$$;

-- a single event, which is what a caller who waits for each append has, goes without arrays: they cost more than its insert.
-- appends one event to a log that is as the writer knows it, and gives its position; null when others were faster: nothing was written, and
-- it is a case for annals.append.
create function annals.append_one(
    known_head bigint,
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
language plpgsql volatile set enable_seqscan = off as $$
declare
    head bigint;
    changes bigint;
    latest bigint;
begin
    perform annals.enter_section();
    select log_head.head, log_head.changes, log_head.recorded into head, changes, latest from annals.log_head() as log_head;
    if head <> known_head or changes <> known_changes then
        return null;
    end if;
    insert into annals.event (
        position, stream, version, kind, append_index, append_events, occurred_at, recorded_at, id, digest, tags, metadata, payload
    ) values (
        head + 1, to_stream, at_version, of_kind, 0, 1, occurred, greatest(recorded, latest),
        with_id, with_digest, with_tags, with_metadata, with_payload
    );
    if cardinality(tag_hashes) > 0 then
        insert into annals.event_tag (tag, position) select given.hash, head + 1 from unnest(tag_hashes) as given(hash);
    end if;
    return head + 1;
end
$$;
