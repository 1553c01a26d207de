-- grants a lease
replace into annals_leases (name, owner, epoch, expires_at, released) values (?1, ?2, ?3, ?4, 0)
