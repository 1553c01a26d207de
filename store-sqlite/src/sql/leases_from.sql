-- the leases from a name on, in the order of the names
select name, owner, epoch, ends_at, given_back from annals_leases where name >= ?1 order by name
