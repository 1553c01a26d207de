-- as `append_one_beside`, and releases the log before the flush, as `append_then_flush` does
create or replace procedure annals.append_one_then_flush(
    known_incarnation pg_catalog.uuid,
    known_head pg_catalog.int8,
    known_event pg_catalog.uuid,
    known_changes pg_catalog.int8,
    to_stream pg_catalog.int8,
    at_version pg_catalog.int8,
    relies pg_catalog.bool,
    of_kind pg_catalog.int4,
    occurred pg_catalog.int8,
    recorded pg_catalog.int8,
    with_id pg_catalog.uuid,
    with_digest pg_catalog.uuid,
    with_tags pg_catalog.text,
    with_metadata pg_catalog.bytea,
    with_payload pg_catalog.bytea,
    tag_hashes pg_catalog.int8[],
    inout given pg_catalog.int8,
    inout given_version pg_catalog.int8
)
language plpgsql
as $$
begin
    set local synchronous_commit = off;
    select done.given, done.given_version
    into given, given_version
    from annals.append_one_beside(
        known_incarnation, known_head, known_event, known_changes, to_stream, at_version, relies,
        of_kind, occurred, recorded, with_id, with_digest, with_tags, with_metadata, with_payload,
        tag_hashes
    ) as done;
    commit;
    if given is not null then
        perform pg_catalog.pg_logical_emit_message(true, 'annals', ''::pg_catalog.text);
    end if;
end
$$;
