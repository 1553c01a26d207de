-- takes a lease that is free or has ended, and says who has it then, in one call
select is_granted, owner, epoch, expires_at from annals.acquire_lease($1, $2, $3, $4)
