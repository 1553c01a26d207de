-- when the event at a position was recorded; positions have no holes
select recorded_at from annals_events where position = ?1
