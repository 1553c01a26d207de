-- for an append: makes the row of view_stream_version of each of these keys, before the section
-- locks it. a generation is not dropped while rows are made in it; in one that is being changed
-- just now none is made: an append waits for no step. a row that was never written is no loss in a
-- crash.
create or replace function annals.ensure_stream_versions(generations bigint[], keys bytea[])
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
    if not exists (
        select from unnest(generations, keys) as given(generation, key)
        where not exists (
            select from annals.view_stream_version as kept
            where kept.generation = given.generation and kept.key = given.key
        )
    ) then
        return;
    end if;
    perform set_config('synchronous_commit', 'off', true);
    with held as materialized (
        select id from annals.view_generation
        where id = any (generations) and phase <> 3
        order by id
        for share skip locked
    )
    insert into annals.view_stream_version (generation, key, version)
    select given.generation, given.key, 0
    from unnest(generations, keys) as given(generation, key)
    join held on held.id = given.generation
    order by given.generation, given.key
    on conflict do nothing;
end
$$;
