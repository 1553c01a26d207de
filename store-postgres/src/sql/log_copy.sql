-- as log_page_small and log_page_kinds, for a copy to the client, which takes no parameters: values
-- are put in their place, and a condition on kinds in place of the last one. there is little to
-- plan, because it is planned each time.
select
    position, stream, version, kind, append_index, occurred_at, recorded_at, id, tags, metadata,
    case when pg_catalog.octet_length(payload) <= $4 then payload end
from annals.event
where position > $1 and position <= $2 and $5
order by position
limit $3
