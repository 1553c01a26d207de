-- state and version of a stream; no row when no event or change ever named it
select
    key, status, truncated_before, archived_before, deletions,
    (select version from annals_events where stream = streams.key order by version desc limit 1)
from annals_streams as streams
where name = ?1
