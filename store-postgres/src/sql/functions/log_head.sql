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
begin
    -- Tables in the order in which they were made, as everybody who locks them all goes.
    select
        coalesce(last.position, 0), last.id, coalesce(change.key, 0),
        coalesce(greatest(last.recorded_at, change.recorded_at), '-9223372036854775808'::bigint),
        run.id
    into head, head_event, changes, recorded, incarnation
    from (values (1)) as log(one)
    left join annals.incarnation as run
        on run.one = log.one and run.relation = 'annals.event'::regclass::oid
    left join lateral (
        select stream_change.key, stream_change.recorded_at
        from annals.stream_change
        order by stream_change.key desc
        limit 1
    ) as change on true
    left join lateral (
        select event.position, event.id, event.recorded_at
        from annals.event
        order by event.position desc
        limit 1
    ) as last on true;
end
$$;
