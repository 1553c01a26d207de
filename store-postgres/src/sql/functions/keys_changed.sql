-- keys from one on with a version that ends after a position, up to and with another, in order. so
-- many versions are looked at by their ends before it is better to ask key after key.
create or replace function annals.keys_changed(
    of_generation bigint,
    after_position bigint,
    last bigint,
    from_key bytea,
    most bigint
)
returns setof bytea
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
    looked_at constant integer := 16384;
    ending bytea[];
    next_key bytea := from_key;
    found_keys bigint := 0;
begin
    ending := array(
        select key from annals.view_row_version
        where generation = of_generation and up_to > after_position and up_to <= last
        order by up_to
        limit looked_at
    );
    if cardinality(ending) < looked_at then
        return query
            select distinct changed.key
            from unnest(ending) as changed(key)
            where changed.key >= from_key
            order by 1
            limit most;
        return;
    end if;
    while found_keys < most loop
        select key into next_key
        from annals.view_row_version
        where generation = of_generation and key >= next_key
        order by key
        limit 1;
        exit when next_key is null;
        if exists (
            select from annals.view_row_version
            where generation = of_generation and key = next_key
                and up_to > after_position and up_to <= last
        ) then
            return next next_key;
            found_keys := found_keys + 1;
        end if;
        next_key := next_key || E'\\x00'::bytea;
    end loop;
end
$$;
