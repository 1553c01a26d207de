-- what a stream is; no row when it was never named
select
    key, status, truncated_before, archived_before, deletions,
    (select version from annals_events where stream = streams.key order by version desc limit 1)
from annals_streams as streams
where name = ?1
