-- the leases from a name on, in the order of the names
select name, owner, epoch, expires_at, released from annals_leases where name >= ?1 order by name
