-- what a row of generation 1 was at a position: the newest that is not after it.
select value
from annals.view_version
where generation = 1 and key = $1 and up_to <= $2
order by up_to desc limit 1
