-- as append, in a call that releases the log before it waits for the flush
call annals.append_then_flush(
    $1, $2, $3, $4,
    row(
        $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
        $24::text::jsonb, $25
    )::annals.append_batch,
    null, null, null, null, null
)
