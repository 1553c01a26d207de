-- leases with names from one on, up to but without another, in the order of the names, and whether
-- each is free
select
    name, owner, epoch, expires_at,
    is_released or expires_at <= coalesce($3, annals.now_micros())
from annals.lease
where name >= $1 and name < $2
order by name
