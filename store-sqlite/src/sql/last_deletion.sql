-- when the last deletion was recorded: no later event may be recorded before it
select recorded_at from annals_deletions order by key desc limit 1
