-- releases a lease that no other took since; its row stays
update annals.lease set is_released = true
where name = $1 and owner = $2 and epoch = $3 and not is_released
