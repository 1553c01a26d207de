-- the last position
select coalesce(max(position), 0) from annals_events
