-- changes a stream from what it was known to be; is_done is false when it is not that any more, and
-- nothing was done. a change_id that is known violates stream_change_by_id.
create or replace function annals.change_stream(
    change_id uuid,
    change smallint,
    before bigint,
    known_incarnation uuid,
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
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    archived bigint;
    incarnation uuid;
begin
    is_done := false;
    perform annals.lock_log();
    select log.head, log.changes, log.recorded, log.incarnation
    into head, changes, recorded, incarnation
    from annals.log_head() as log;
    if incarnation is distinct from known_incarnation or changes <> known_changes
        or known_version <> coalesce(
            (select version from annals.event where stream = changed order by version desc limit 1),
            0
        )
    then
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
        deleted_version = case when empties then known_version else deleted_version end,
        deletions = deletions + empties::integer
    where key = changed;
    insert into annals.stream_change (
        key, stream, is_deletion, version, position, recorded_at, change_id, change, before
    )
    values (
        changes, changed, empties, known_version, head, recorded, change_stream.change_id,
        change_stream.change, change_stream.before
    );
    if new_archived_before > archived then
        delete from annals.event_tag
        using unnest(tag_hashes, tag_positions) as gone(tag, position)
        where event_tag.tag = gone.tag and event_tag.position = gone.position;
        delete from annals.snapshot using annals.stream
        where stream.key = changed and snapshot.stream = stream.name;
        -- As `DeadLetter::ARCHIVED` says.
        update annals.view_dead_letter as letter set cause = 'the event was archived'::bytea
        from annals.event as removed
        where letter.cause is not null and removed.id = letter.event
            and removed.stream = changed and removed.version < new_archived_before;
        update annals.event set kind = -kind, payload = '', tags = null, metadata = null
        where stream = changed and version < new_archived_before and kind > 0;
    end if;
    is_done := true;
end
$$;
