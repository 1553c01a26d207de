-- leases with names from one on, up to but without another, in the order of the names, and whether each has ended
select name, owner, epoch, ends_at, given_back or ends_at <= coalesce($3, annals.present())
from annals.lease
where name >= $1 and name < $2
order by name
