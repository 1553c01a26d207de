-- as log_forward_small and log_forward_kinds, for a copy to the client, which takes no parameters: what stands for them is put in its place.
-- which events are wanted is a condition of its own, in place of the last one. there is little to plan, because it is planned each time.
select
    position, stream, version, kind, append_index, occurred_at, recorded_at, id, tags, metadata,
    case when octet_length(payload) <= $4 then payload end
from annals.event
where position > $1 and position <= $2 and $5
order by position
limit $3
