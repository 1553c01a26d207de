-- an event removed for good keeps its row, of its kind negated (0 where it was removed before) and
-- without content. readers of the log are told of those in a range of positions.
create index event_removed on annals.event (position) where kind <= 0;
