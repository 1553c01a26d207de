-- the events of one append, in one statement.
insert into baseline.by_hand (stream, version, kind, append_index, append_events, occurred_at,
    recorded_at, id, digest, metadata, payload)
select $1, *
from unnest($2::bigint[], $3::integer[], $4::integer[], $5::integer[], $6::bigint[], $6::bigint[],
    $7::uuid[], $8::uuid[], $9::bytea[], $10::bytea[])
