-- the last position, when it was recorded, and its event; no row in an empty log. events keep their
-- rows for ever, so no position returns
select position, recorded_at, id from annals_events order by position desc limit 1
