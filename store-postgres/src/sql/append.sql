-- appends a batch in one call, all of the appends that still hold, and says which do not
select is_done, first, moved_streams, moved_versions, skipped
from annals.append(
    $1, $2, $3, $4,
    row(
        $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
        $24::text::jsonb, $25
    )::annals.append_batch
)
