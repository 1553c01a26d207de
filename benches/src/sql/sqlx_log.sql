-- the whole log, in its order.
select position, stream, version, kind, append_index, occurred_at, recorded_at, id, tags, metadata,
    payload
from baseline.by_hand
order by position
