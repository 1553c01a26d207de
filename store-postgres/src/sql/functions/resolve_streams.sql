-- the keys, versions and statuses of streams by their names; with make those without a key are
-- given one, in order, so that two who make the same names do not wait for each other. a key is
-- durable with the first commit that uses it, and good for one incarnation. what is made here has
-- no event, and is not looked up again: an append may make thousands of names.
create or replace function annals.resolve_streams(names text[], make boolean)
returns table (name text, key bigint, version bigint, status smallint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    made_names text[];
    made_keys bigint[];
begin
    if make and exists (
        select from unnest(names) as wanted(name)
        where not exists (select from annals.stream where stream.name = wanted.name)
    ) then
        perform set_config('synchronous_commit', 'off', true);
        with made as (
            insert into annals.stream (name)
            select wanted.name
            from (
                -- In the order in which writers give them, whatever the language of the database.
                select distinct given.name collate "C" as name
                from unnest(names) as given(name)
                order by 1
            ) as wanted
            where not exists (select from annals.stream where stream.name = wanted.name)
            on conflict do nothing
            returning stream.name, stream.key
        )
        select array_agg(made.name), array_agg(made.key) into made_names, made_keys
        from made;
        return query
            select given.name, given.key, 0::bigint, 0::smallint
            from unnest(made_names, made_keys) as given(name, key);
        if cardinality(made_names) = cardinality(names) then
            return;
        end if;
        names := array(select unnest(names) except select unnest(made_names));
    end if;
    return query
        select stream.name, stream.key, coalesce(last.version, 0), stream.status
        from unnest(names) as wanted(name)
        join annals.stream on stream.name = wanted.name
        left join lateral (
            select event.version from annals.event
            where event.stream = stream.key
            order by event.version desc
            limit 1
        ) as last on true;
end
$$;
