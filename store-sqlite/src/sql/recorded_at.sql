-- when the event at a position was recorded; positions are dense
select recorded_at from annals_events where position = ?1
