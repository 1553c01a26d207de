-- the skip decisions of a view, in the order of partition, position and key, those about all keys
-- first
select partition, position, has_key, key, event, decided_at, reason
from annals_view_skips
where view = ?1
order by partition, position, has_key, key
