-- releases a lease that is still held with this owner and epoch
update annals_leases set released = 1 where name = ?1 and owner = ?2 and epoch = ?3 and released = 0
