-- the events that the open transaction has staged, from a number on and in their order
select staged.number, given.id, given.digest, stream.name
from annals.staged_append as staged
cross join lateral rows from (
    pg_catalog.unnest(staged.ids),
    pg_catalog.unnest(staged.digests),
    pg_catalog.unnest(staged.streams)
) with ordinality as given(id, digest, stream, place)
join annals.stream on stream.key = given.stream
where staged.number >= $1
order by staged.number, given.place
