-- a lease, also one that has expired
select name, owner, epoch, expires_at, released from annals_leases where name = ?1
