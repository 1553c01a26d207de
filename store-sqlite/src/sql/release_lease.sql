-- gives back a lease that is still this one
update annals_leases set given_back = 1 where name = ?1 and owner = ?2 and epoch = ?3 and given_back = 0
