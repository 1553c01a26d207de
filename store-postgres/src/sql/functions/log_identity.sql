-- which incarnation this is, in one moment: the log, when its server started, the incarnation, the
-- head and the event there, and the event at a position that is known. nothing is known of the
-- incarnation on a standby, where unlogged tables cannot be read.
create or replace function annals.log_identity(
    known_position bigint,
    out log uuid,
    out started text,
    out incarnation uuid,
    out head bigint,
    out head_event uuid,
    out known_event uuid,
    out is_standby boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
    -- Tables in the order in which they were made, as everybody who locks them all goes.
    select known.id into log from annals.log as known;
    is_standby := pg_is_in_recovery();
    if not is_standby then
        select run.id into incarnation
        from annals.incarnation as run
        where run.one = 1 and run.relation = 'annals.event'::regclass::oid;
    end if;
    started := extract(epoch from pg_postmaster_start_time())::text;
    select event.position, event.id into head, head_event
    from annals.event
    order by event.position desc
    limit 1;
    head := coalesce(head, 0);
    select event.id into known_event from annals.event where event.position = known_position;
end
$$;
