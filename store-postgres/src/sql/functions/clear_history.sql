-- clears a little of the history that a generation has forgotten: of each key the newest version
-- that ends before what is kept stays, unless it says that there was no row. false when nothing is
-- left, or another session clears it.
create or replace function annals.clear_history(most integer) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
    forgotten record;
    cleared bigint;
begin
    select id, history_cleared_to, history_since into forgotten
    from annals.view_generation
    where history_cleared_to < history_since and history <> 0 and phase <> 3
    order by id
    limit 1
    for no key update skip locked;
    if not found then
        return false;
    end if;
    -- All that end at the last of these positions together.
    select max(older.up_to) into cleared
    from (
        select up_to from annals.view_row_version
        where generation = forgotten.id and up_to > forgotten.history_cleared_to
            and up_to <= forgotten.history_since
        order by up_to
        limit most
    ) as older;
    if cleared is not null then
        delete from annals.view_row_version as old
        using annals.view_row_version as newer
        where newer.generation = forgotten.id and newer.up_to > forgotten.history_cleared_to
            and newer.up_to <= cleared and old.generation = forgotten.id and old.key = newer.key
            and old.up_to < newer.up_to;
        delete from annals.view_row_version as removal
        where removal.generation = forgotten.id and removal.up_to > forgotten.history_cleared_to
            and removal.up_to <= cleared and removal.value is null
            and not exists (
                select from annals.view_row_version as newer
                where newer.generation = forgotten.id and newer.key = removal.key
                    and newer.up_to > removal.up_to and newer.up_to <= forgotten.history_since
            );
    end if;
    update annals.view_generation
    set history_cleared_to = coalesce(cleared, forgotten.history_since)
    where id = forgotten.id;
    return true;
end
$$;
