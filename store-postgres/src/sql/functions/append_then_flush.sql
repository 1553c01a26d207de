-- as `append`, and releases the log before the flush: its commit makes the events visible and is
-- not flushed, the statement ends with a commit that is, and with it everything before it. what is
-- flushed is always a prefix of the positions, because commits are in the order of the lock.
--
-- without a search path of its own, because a procedure that sets one may not commit: every name is
-- qualified.
create or replace procedure annals.append_then_flush(
    known_incarnation pg_catalog.uuid,
    known_head pg_catalog.int8,
    known_event pg_catalog.uuid,
    known_changes pg_catalog.int8,
    batch annals.append_batch,
    inout is_done pg_catalog.bool,
    inout first pg_catalog.int8,
    inout moved_streams pg_catalog.int8[],
    inout moved_versions pg_catalog.int8[],
    inout skipped pg_catalog.int4[]
)
language plpgsql
as $$
begin
    set local synchronous_commit = off;
    select done.is_done, done.first, done.moved_streams, done.moved_versions, done.skipped
    into is_done, first, moved_streams, moved_versions, skipped
    from annals.append(known_incarnation, known_head, known_event, known_changes, batch) as done;
    commit;
    -- A transaction that writes to the log of the server, so that its commit waits for the flush,
    -- and for synchronous standbys. Where nothing was written, the caller looks again.
    if is_done then
        perform pg_catalog.pg_logical_emit_message(true, 'annals', ''::pg_catalog.text);
    end if;
end
$$;
