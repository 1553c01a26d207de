-- the deletions of a stream after one of them, oldest first
select version, position, recorded_at, key
from annals_deletions
where stream = ?1 and key > ?2
order by key
