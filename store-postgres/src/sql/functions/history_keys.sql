-- keys from one on, up to but without another, that have a row or a visible version, in order
create or replace function annals.history_keys(
    of_generation bigint,
    since bigint,
    from_key bytea,
    to_key bytea,
    most bigint
)
returns setof bytea
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
    next_row bytea;
    next_version bytea;
    found_keys bigint := 0;
begin
    while found_keys < most loop
        select key into next_row
        from annals.view_row
        where generation = of_generation and key >= from_key and key < to_key
        order by key
        limit 1;
        select key into next_version
        from annals.view_row_version
        where generation = of_generation and key >= from_key and key < to_key
        order by key
        limit 1;
        exit when next_row is null and next_version is null;
        if next_row is not null and (next_version is null or next_row <= next_version) then
            return next next_row;
            found_keys := found_keys + 1;
            from_key := next_row || E'\\x00'::bytea;
        else
            if exists (
                select from annals.visible_version(of_generation, since, next_version, since)
            ) or exists (
                select from annals.view_row_version
                where generation = of_generation and key = next_version and up_to > since
            ) then
                return next next_version;
                found_keys := found_keys + 1;
            end if;
            from_key := next_version || E'\\x00'::bytea;
        end if;
    end loop;
end
$$;
