-- the log's id, and the id of the event at a position
select (select id from annals_log), (select id from annals_events where position = ?1)
