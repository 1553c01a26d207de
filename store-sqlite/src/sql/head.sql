-- the last position, and when it was recorded; no row in an empty log. events keep their rows for ever, so no position returns
select position, recorded_at from annals_events order by position desc limit 1
