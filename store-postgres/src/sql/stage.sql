-- stages an append in the open transaction, which remembers from which number on it has staged some
with staged as (
    insert into annals.staged_append (
        incarnation, recorded, streams, kinds, occurred, ids, digests, tags, metadata, payloads,
        tag_hashes, tag_events, expected_streams, expected_codes, expected_versions,
        expected_writes, items, checked_to
    )
    values (
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17::text::jsonb,
        $18
    )
    returning number
)
select pg_catalog.set_config(
    'annals_staged.from_number',
    least(
        nullif(pg_catalog.current_setting('annals_staged.from_number', true), '')::bigint,
        staged.number
    )::text,
    true
)
from staged
