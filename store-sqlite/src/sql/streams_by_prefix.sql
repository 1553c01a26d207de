-- the streams whose names lie between two texts, with the versions that they still hold
select
    key, archived_before,
    (select version from annals_events where stream = streams.key order by version desc limit 1)
from annals_streams as streams
where name >= ?1 and name <= ?2
limit ?3
