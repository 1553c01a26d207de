-- positions that still hold an event, descending
select position from annals_events where position >= ?1 and position <= ?2 and kind <> 0 order by position desc limit ?3
