-- stages an append in the transaction that is open
insert into annals.staged_append (
    incarnation, recorded, streams, kinds, occurred, ids, digests, tags, metadata, payloads,
    tag_hashes, tag_events, expected_streams, expected_codes, expected_versions, expected_writes,
    items, checked_to
)
values (
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17::text::jsonb, $18
)
