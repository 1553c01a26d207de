-- as append, with the rows that travel with the batch, of those of its appends that still hold
select is_done, first, changes, moved_streams, moved_versions, skips
from annals.append_with_rows(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22::text::jsonb, $23, $24, $25, $26,
    $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37
)
