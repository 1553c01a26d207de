-- one event, which the unique index on stream and version refuses after a concurrent append.
insert into baseline.by_hand (stream, version, kind, append_index, append_events, occurred_at,
    recorded_at, id, digest, metadata, payload)
values ($1, $2, $3, $4, $5, $6, $6, $7, $8, $9, $10)
