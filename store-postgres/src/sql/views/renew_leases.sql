-- moves the ends of leases that no other took since and that were not released; their names and
-- epochs
update annals.lease l
set expires_at = least(coalesce($5, annals.now_micros()) + $4, 253402300799000000)
from unnest($1::bytea[], $2::bytea[], $3::bigint[]) as held (name, owner, epoch)
where l.name = held.name and l.owner = held.owner and l.epoch = held.epoch and not l.is_released
returning l.name, l.epoch
