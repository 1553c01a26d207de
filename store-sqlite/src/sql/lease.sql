-- a lease, also one that has ended
select name, owner, epoch, ends_at, given_back from annals_leases where name = ?1
