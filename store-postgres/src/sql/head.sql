-- how far the log goes
select coalesce(max(position), 0) from annals.event
