-- changes a stream from what it was known to be, in one call
select is_done, head, changes, recorded
from annals.change_stream($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
