-- appends one event beside others who append too, and gives its position and version; releases the
-- log before it waits for the flush. parameters: functions/append_one_then_flush.sql
call annals.append_one_then_flush(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, null, null
)
