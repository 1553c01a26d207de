-- there is no such lease any more
delete from annals_leases where name = ?1
