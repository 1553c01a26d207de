-- keeps a skip decision in place of the one about the same event and key
insert into annals.view_skip_decision (
    view, partition, position, has_key, key, event, decided_at, reason
)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (view, partition, position, has_key, key) do update
set event = excluded.event, decided_at = excluded.decided_at, reason = excluded.reason
