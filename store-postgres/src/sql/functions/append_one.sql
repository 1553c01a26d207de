-- appends one event to a log that is as the writer knows it, and gives its position; null when it
-- is not: nothing was written, and it is a case for `append`. without arrays, which cost more than
-- the insert of an event.
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
    log record;
begin
    perform annals.lock_log();
    select * into log from annals.log_head();
    if log.head <> known_head or log.changes <> known_changes
        or log.head_event is distinct from known_event
        or log.incarnation is distinct from known_incarnation
    then
        return null;
    end if;
    insert into annals.event (
        position, stream, version, kind, append_index, append_events, occurred_at, recorded_at,
        id, digest, tags, metadata, payload
    ) values (
        log.head + 1, to_stream, at_version, of_kind, 0, 1, occurred,
        greatest(recorded, log.recorded),
        with_id, with_digest, with_tags, with_metadata, with_payload
    );
    if cardinality(tag_hashes) > 0 then
        insert into annals.event_tag (tag, position)
        select given.hash, log.head + 1 from unnest(tag_hashes) as given(hash);
    end if;
    return log.head + 1;
end
$$;
