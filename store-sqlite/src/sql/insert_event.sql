-- records an event; the unique indexes refuse a known id and a taken version
insert into annals_events (
    position, stream, version, kind, append_index, append_events, occurred_at, recorded_at,
    id, digest, tags, metadata, payload
) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
