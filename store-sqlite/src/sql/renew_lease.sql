-- extends a lease that is still held with this owner and epoch
update annals_leases set expires_at = ?4
where name = ?1 and owner = ?2 and epoch = ?3 and released = 0
