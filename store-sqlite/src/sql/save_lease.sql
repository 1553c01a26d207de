-- grants a lease
replace into annals_leases (name, owner, epoch, ends_at, given_back) values (?1, ?2, ?3, ?4, 0)
