-- version 4: appends inside an application's own transaction. they are staged there, and numbered and checked at its commit: so the
-- section begins when the application has nothing more to do, and ends with the flush of the commit.

-- appends that wait for the commit of their transaction, one a row; nobody else ever sees one. what is lost in a crash was not committed.
create unlogged table annals.staged (
    number bigint generated always as identity primary key,
    staged_at timestamptz not null default clock_timestamp(),
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
    behind bigint not null
);

-- whether a stream is as an append expects it. codes: 0 anything, 1 no stream, 2 exists, 3 a version, 4 active at a version
create function annals.is_expected(code smallint, expected bigint, writes boolean, status smallint, version bigint) returns boolean
language sql immutable as $$
    select case
        when code = 1 and not writes then status <> 0 or version = 0
        when status = 3 then false
        when code = 0 then true
        when code = 1 then status = 2 or version = 0
        when code = 2 then status = 0 and version > 0
        when code = 3 and expected = 0 then status = 0 and version = 0
        when code = 3 then version = expected
        else status = 0 and version > 0 and version = expected
    end
$$;

-- numbers a staged append, or ends the transaction: AN001 when something that it expects does not hold, with what was found in the detail;
-- AN002 when so much was appended since its condition was checked that it must be checked again.
create function annals.number_staged() returns trigger
language plpgsql volatile as $$
declare
    head bigint;
    latest bigint;
    refused jsonb;
    matching bigint;
begin
    perform annals.enter_section();
    select log_head.head, log_head.recorded into head, latest from annals.log_head() as log_head;
    latest := greatest(latest, new.recorded + (extract(epoch from clock_timestamp() - new.staged_at) * 1000000)::bigint);
    select jsonb_agg(jsonb_build_array(wanted.place - 1, stream.status, coalesce(last.version, 0)) order by wanted.place) into refused
    from unnest(new.expected_streams, new.expected_codes, new.expected_versions, new.expected_writes) with ordinality
        as wanted(stream, code, version, writes, place)
    join annals.stream on stream.key = wanted.stream
    left join lateral (
        select event.version from annals.event where event.stream = stream.key order by event.version desc limit 1
    ) as last on true
    where not annals.is_expected(wanted.code, wanted.version, wanted.writes, stream.status, coalesce(last.version, 0));
    if new.items is not null then
        if head - new.behind > 100000 then
            raise exception 'the condition was checked too long ago' using errcode = 'AN002';
        end if;
        matching := annals.first_match(new.items, new.behind, head);
    end if;
    if refused is not null or matching is not null then
        raise exception 'what the append expects does not hold'
            using errcode = 'AN001', detail = jsonb_build_array(new.ids[1], coalesce(refused, '[]'), matching)::text;
    end if;
    insert into annals.event (
        position, stream, version, kind, append_index, append_events, occurred_at, recorded_at, id, digest, tags, metadata, payload
    )
    select
        head + given.place,
        given.stream,
        coalesce(last.version, 0) + row_number() over (partition by given.stream order by given.place),
        given.kind, given.place - 1, cardinality(new.streams), given.occurred, latest, given.id, given.digest,
        given.tags, given.metadata, given.payload
    from unnest(
        new.streams, new.kinds, new.occurred, new.ids, new.digests, new.tags, new.metadata, new.payloads
    ) with ordinality as given(stream, kind, occurred, id, digest, tags, metadata, payload, place)
    left join lateral (
        select event.version from annals.event where event.stream = given.stream order by event.version desc limit 1
    ) as last on true;
    insert into annals.event_tag (tag, position)
    select given.hash, head + given.event from unnest(new.tag_hashes, new.tag_events) as given(hash, event);
    update annals.stream set status = 0, truncated_before = 0 where key = any (new.streams) and status = 2;
    delete from annals.staged where number = new.number;
    return null;
end
$$;

create constraint trigger number_staged after insert on annals.staged
deferrable initially deferred for each row execute function annals.number_staged();
