-- removes a lease
delete from annals_leases where name = ?1
