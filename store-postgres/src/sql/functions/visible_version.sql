-- the newest version of a key that ends at or before a moment, as far as it is not forgotten
create or replace function annals.visible_version(
    of_generation bigint,
    since bigint,
    of_key bytea,
    moment bigint
)
returns table (up_to bigint, after bigint, recorded_at bigint, value bytea)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
    return query
        select newest.up_to, newest.after, newest.recorded_at, newest.value
        from (
            select version.up_to, version.after, version.recorded_at, version.value
            from annals.view_row_version as version
            where version.generation = of_generation and version.key = of_key
                and version.up_to <= moment
            order by version.up_to desc
            limit 1
        ) as newest
        where newest.value is not null or newest.up_to > since;
end
$$;
