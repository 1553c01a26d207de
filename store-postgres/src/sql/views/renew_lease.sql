-- moves the end of a lease that no other took since and that was not released
update annals.lease
set expires_at = least(coalesce($5, annals.now_micros()) + $4, 253402300799000000)
where name = $1 and owner = $2 and epoch = $3 and not is_released
