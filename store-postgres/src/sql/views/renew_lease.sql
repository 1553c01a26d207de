-- moves the end of a lease that nobody took since and that was not given back
update annals.lease
set ends_at = least(coalesce($5, annals.present()) + $4, 253402300799000000)
where name = $1 and owner = $2 and epoch = $3 and not given_back
