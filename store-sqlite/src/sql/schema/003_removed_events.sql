-- an archived event keeps its row, of its kind negated (0 where it was archived before) and without
-- content.
-- readers of the log are told of those in a range of positions.
create index annals_events_removed on annals_events (position) where kind <= 0;
