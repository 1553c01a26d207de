-- as append, with the rows of inline views of those of its appends that still hold
select is_done, first, moved_streams, moved_versions, skipped
from annals.append_with_rows(
    $1, $2, $3, $4,
    row(
        $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
        $24::text::jsonb, $25
    )::annals.append_batch,
    row(
        $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39
    )::annals.inline_rows
)
