-- the head and the id of its event, the last change of a stream, the latest recorded time, and the
-- incarnation, which is null when the server has not been given one since it recovered
create or replace function annals.log_head(
    out head bigint,
    out head_event uuid,
    out changes bigint,
    out recorded bigint,
    out incarnation uuid
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
    changed_at bigint;
begin
    -- Tables in the order in which they were made, as everybody who locks them all goes.
    select run.id into incarnation
    from annals.incarnation as run
    where run.one = 1 and run.relation = 'annals.event'::regclass::oid;
    select stream_change.key, stream_change.recorded_at into changes, changed_at
    from annals.stream_change
    order by stream_change.key desc
    limit 1;
    select event.position, event.id, event.recorded_at into head, head_event, recorded
    from annals.event
    order by event.position desc
    limit 1;
    head := coalesce(head, 0);
    changes := coalesce(changes, 0);
    recorded := coalesce(greatest(recorded, changed_at), -9223372036854775808);
end
$$;
