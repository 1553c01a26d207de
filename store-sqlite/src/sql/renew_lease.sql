-- moves the end of a lease that is still this one
update annals_leases set ends_at = ?4 where name = ?1 and owner = ?2 and epoch = ?3 and given_back = 0
