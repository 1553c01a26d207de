-- version 5: a function in SQL that is called inside another is planned anew by every call, which took a third of the time of a small append.

-- how far the log goes, the last change of a stream, and the latest recorded time
create or replace function annals.log_head(out head bigint, out changes bigint, out recorded bigint)
language plpgsql volatile as $$
declare
    changed_at bigint;
begin
    select event.position, event.recorded_at into head, recorded
    from annals.event
    order by event.position desc
    limit 1;
    select stream_change.key, stream_change.recorded_at into changes, changed_at
    from annals.stream_change
    order by stream_change.key desc
    limit 1;
    head := coalesce(head, 0);
    changes := coalesce(changes, 0);
    recorded := coalesce(greatest(recorded, changed_at), -9223372036854775808);
end
$$;
