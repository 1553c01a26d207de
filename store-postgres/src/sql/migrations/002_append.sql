-- version 2: appending. every function here is called as a statement of its own, so that its transaction begins and ends with it and no
-- client can keep it open.
--
-- the section: whoever gives positions holds an advisory lock of the transaction, keyed by the table of events, from before it looks at
-- the head until its commit is on the disk. so positions are dense and in the order of the commits, and whoever has the lock sees every
-- position that was given. the lock is taken by a statement before the ones that look, because each sees what was committed when it began.

create function annals.enter_section() returns void
language sql volatile as $$
    select pg_catalog.pg_advisory_xact_lock(1095650892, 'annals.event'::regclass::oid::integer)
$$;

-- where streams stand, by their names; with make they are given a key when they have none. a name is no event: it is on the disk with the
-- first commit that needs it.
create function annals.resolve_streams(names text[], make boolean)
returns table (name text, key bigint, version bigint, status smallint)
language plpgsql volatile as $$
begin
    if make and exists (
        select from unnest(names) as wanted(name) where not exists (select from annals.stream where stream.name = wanted.name)
    ) then
        perform set_config('synchronous_commit', 'off', true);
        -- in order, so that two who make the same names do not wait for each other
        insert into annals.stream (name)
        select wanted.name
        from (select distinct unnest(names) as name order by 1) as wanted
        where not exists (select from annals.stream where stream.name = wanted.name)
        on conflict do nothing;
    end if;
    return query
        select stream.name, stream.key, coalesce(last.version, 0), stream.status
        from unnest(names) as wanted(name)
        join annals.stream on stream.name = wanted.name
        left join lateral (
            select event.version from annals.event where event.stream = stream.key order by event.version desc limit 1
        ) as last on true;
end
$$;

-- the key of a kind, which is given one when it has none. at most 256 categories have kinds of their own.
create function annals.make_kind(of_type text, of_version bigint, of_codec text, of_category text) returns integer
language plpgsql volatile as $$
declare
    found_category integer;
    found_kind integer;
begin
    perform pg_catalog.pg_advisory_xact_lock(1095650894, 'annals.kind'::regclass::oid::integer);
    perform set_config('synchronous_commit', 'off', true);
    select key into found_category from annals.category where name = of_category;
    if not found then
        select max(key) + 1 into found_category from annals.category;
        if found_category > 256 then
            found_category := 0;
        else
            insert into annals.category (key, name) values (found_category, of_category);
        end if;
    end if;
    select key into found_kind from annals.kind
    where type = of_type and schema_version = of_version and codec = of_codec and category = found_category;
    if not found then
        select max(key) + 1 into found_kind from annals.kind;
        insert into annals.kind (key, type, schema_version, codec, category)
        values (found_kind, of_type, of_version, of_codec, found_category);
    end if;
    return found_kind;
end
$$;

-- how far the log goes, the last change of a stream, and the latest recorded time
create function annals.log_head(out head bigint, out changes bigint, out recorded bigint)
language sql volatile as $$
    select
        coalesce(event.position, 0),
        coalesce(stream_change.key, 0),
        coalesce(greatest(event.recorded_at, stream_change.recorded_at), -9223372036854775808)
    from (values (1)) as one
    left join lateral (select position, recorded_at from annals.event order by position desc limit 1) as event on true
    left join lateral (select key, recorded_at from annals.stream_change order by key desc limit 1) as stream_change on true
$$;

-- the first event behind a position that matches one of the items of a condition: one of the types, one of the streams, all of the tags
create function annals.first_match(items jsonb, behind bigint, up_to bigint) returns bigint
language plpgsql stable as $$
declare
    matching bigint;
begin
    -- planned for these very positions, so that only the newest rows are looked at
    execute format($query$
        select min(event.position)
        from annals.event
        join annals.kind on kind.key = event.kind
        join annals.stream on stream.key = event.stream
        cross join jsonb_array_elements($1) as item(wanted)
        where event.position > %s and event.position <= %s and event.kind <> 0
            and (not item.wanted ? 'types' or item.wanted -> 'types' ? kind.type)
            and (not item.wanted ? 'streams' or item.wanted -> 'streams' ? stream.name)
            and (not item.wanted ? 'tags' or to_jsonb(string_to_array(event.tags, E'\n')) @> (item.wanted -> 'tags'))
    $query$, behind, up_to) into matching using items;
    return matching;
end
$$;

-- appends a batch: of each event the number of its append, and of each append that relies on where a stream stands the stream and its
-- version. known_head and known_changes are what the writer has checked everything against; each condition was checked up to the position
-- that it is `behind`, the least of which is least_behind.
--
-- is_done is false when the writer has fallen too far behind: nothing was written, and it looks again. first is the position of the first
-- event. what others appended since known_head is in moved_…, and the appends that do not hold because of it are in skips: nothing of
-- them was written. all of the answer is small, so that a client that does not read it keeps nobody waiting.
create function annals.append(
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
language plpgsql volatile as $$
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
    if head = known_head and coalesce(least_behind >= head, true) then
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

-- changes a stream from what it was known to be: false when it is not that any more, and nothing was done. head is how far the log goes.
create function annals.change_stream(
    changed bigint,
    known_changes bigint,
    known_version bigint,
    new_status smallint,
    new_truncated_before bigint,
    new_archived_before bigint,
    empties boolean,
    at bigint,
    tag_hashes bigint[],
    tag_positions bigint[],
    out is_done boolean,
    out head bigint,
    out changes bigint,
    out recorded bigint
)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    archived bigint;
begin
    is_done := false;
    perform annals.enter_section();
    select log_head.head, log_head.changes, log_head.recorded into head, changes, recorded from annals.log_head() as log_head;
    if changes <> known_changes or known_version <> coalesce(
        (select version from annals.event where stream = changed order by version desc limit 1), 0
    ) then
        return;
    end if;
    changes := changes + 1;
    recorded := greatest(recorded, at);
    select archived_before into archived from annals.stream where key = changed;
    update annals.stream
    set
        status = new_status,
        truncated_before = new_truncated_before,
        archived_before = new_archived_before,
        emptied_at = case when empties then known_version else emptied_at end,
        deletions = deletions + empties::integer
    where key = changed;
    insert into annals.stream_change (key, stream, is_deletion, version, position, recorded_at)
    values (changes, changed, empties, known_version, head, recorded);
    if new_archived_before > archived then
        delete from annals.event_tag using unnest(tag_hashes, tag_positions) as gone(tag, position)
        where event_tag.tag = gone.tag and event_tag.position = gone.position;
        update annals.event set kind = 0, payload = '', tags = null, metadata = null
        where stream = changed and version < new_archived_before and kind <> 0;
    end if;
    is_done := true;
end
$$;
