-- switches the readers of a version to a generation; false when it is dropped
create or replace function annals.switch_generation(to_id bigint) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
    chosen record;
begin
    perform annals.lock_view(to_id);
    select view, version into chosen
    from annals.view_generation
    where id = to_id and phase <> 3;
    if not found then
        return false;
    end if;
    update annals.view_generation
    set phase = case when id = to_id then 1 else 2 end
    where view = chosen.view and version = chosen.version and (id = to_id or phase = 1);
    return true;
end
$$;
