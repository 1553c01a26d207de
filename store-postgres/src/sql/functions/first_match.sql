-- the first event after a position, up to another, that matches one of the items of a condition:
-- one of the types, one of the streams, all of the tags
create or replace function annals.first_match(items jsonb, after bigint, up_to bigint)
returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
    matching bigint;
begin
    -- Dynamic, so that it is planned for these very positions and looks at the newest rows alone.
    execute $query$
        select min(event.position)
        from annals.event
        join annals.kind on kind.key = event.kind
        join annals.stream on stream.key = event.stream
        cross join jsonb_array_elements($1) as item(wanted)
        where event.position > $2 and event.position <= $3 and event.kind > 0
            and (not item.wanted ? 'types' or item.wanted -> 'types' ? kind.type)
            and (not item.wanted ? 'streams' or item.wanted -> 'streams' ? stream.name)
            and (
                not item.wanted ? 'tags'
                or to_jsonb(string_to_array(event.tags, E'\n')) @> (item.wanted -> 'tags')
            )
    $query$ into matching using items, after, up_to;
    return matching;
end
$$;
