-- positions that still hold an event, from the index or the table alone, ascending
select position from annals_events where position >= ?1 and position <= ?2 and kind <> 0 order by position limit ?3
