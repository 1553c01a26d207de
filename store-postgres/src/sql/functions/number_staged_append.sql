-- numbers a staged append at the commit of its transaction, or ends the transaction: AN001 when
-- something that it expects does not hold, with what was found in the detail; AN002 when so much
-- was appended since its condition was checked that it must be checked again; AN003 when the keys
-- that it was staged with are of another incarnation.
create or replace function annals.number_staged_append() returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    log record;
    latest bigint;
    refused jsonb;
    matching bigint;
begin
    -- A transaction that is prepared would keep the log locked until it is ended. One that has
    -- exported a snapshot cannot be prepared.
    if current_setting('max_prepared_transactions') <> '0' then
        perform pg_export_snapshot();
    end if;
    perform annals.lock_log();
    select * into log from annals.log_head();
    if log.incarnation is distinct from new.incarnation then
        raise exception 'the server recovered after the append was staged'
            using errcode = 'AN003';
    end if;
    latest := greatest(
        log.recorded,
        new.recorded + (extract(epoch from clock_timestamp() - new.staged_at) * 1000000)::bigint
    );
    -- codes: 0 anything, 1 no stream, 2 exists, 3 a version, 4 active at a version.
    select jsonb_agg(
        jsonb_build_array(wanted.place - 1, wanted.status, wanted.found_version)
        order by wanted.place
    ) into refused
    from (
        select expected.*, stream.status, coalesce(last.version, 0) as found_version
        from unnest(
            new.expected_streams, new.expected_codes, new.expected_versions, new.expected_writes
        ) with ordinality as expected(stream, code, version, writes, place)
        join annals.stream on stream.key = expected.stream
        left join lateral (
            select event.version from annals.event
            where event.stream = stream.key
            order by event.version desc
            limit 1
        ) as last on true
    ) as wanted
    where not case
        when code = 1 and not writes then status <> 0 or found_version = 0
        when status = 3 then false
        when code = 0 then true
        when code = 1 then status = 2 or found_version = 0
        when code = 2 then status = 0 and found_version > 0
        when code = 3 and version = 0 then status = 0 and found_version = 0
        when code = 3 then found_version = version
        else status = 0 and found_version > 0 and found_version = version
    end;
    if new.items is not null then
        if log.head - new.checked_to > 100000 then
            raise exception 'the condition was checked too long ago' using errcode = 'AN002';
        end if;
        matching := annals.first_match(new.items, new.checked_to, log.head);
    end if;
    if refused is not null or matching is not null then
        raise exception 'what the append expects does not hold' using
            errcode = 'AN001',
            detail = jsonb_build_array(new.ids[1], coalesce(refused, '[]'), matching)::text;
    end if;
    insert into annals.event (
        position, stream, version, kind, append_index, append_events, occurred_at, recorded_at,
        id, digest, tags, metadata, payload
    )
    select
        log.head + given.place,
        given.stream,
        coalesce(last.version, 0)
            + row_number() over (partition by given.stream order by given.place),
        given.kind, given.place - 1, cardinality(new.streams), given.occurred, latest, given.id,
        given.digest, given.tags, given.metadata, given.payload
    from unnest(
        new.streams, new.kinds, new.occurred, new.ids, new.digests, new.tags, new.metadata,
        new.payloads
    ) with ordinality as given(
        stream, kind, occurred, id, digest, tags, metadata, payload, place
    )
    left join lateral (
        select event.version from annals.event
        where event.stream = given.stream
        order by event.version desc
        limit 1
    ) as last on true;
    insert into annals.event_tag (tag, position)
    select given.hash, log.head + given.event
    from unnest(new.tag_hashes, new.tag_events) as given(hash, event);
    update annals.stream set status = 0, truncated_before = 0
    where key = any (new.streams) and status = 2;
    delete from annals.staged_append where number = new.number;
    return null;
end
$$;

drop trigger if exists number_staged_append on annals.staged_append;

create constraint trigger number_staged_append after insert on annals.staged_append
deferrable initially deferred for each row execute function annals.number_staged_append();
