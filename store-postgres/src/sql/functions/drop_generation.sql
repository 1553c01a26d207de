-- drops a generation, with the leases of these names: 0 done, 1 dropped already, 2 it is the only
-- live one of its view. its rows are cleared later.
create or replace function annals.drop_generation(of_id bigint, lease_names bytea[])
returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
    dropped record;
begin
    perform annals.lock_view(of_id);
    select view, phase into dropped
    from annals.view_generation
    where id = of_id and phase <> 3;
    if not found then
        return 1;
    end if;
    if dropped.phase = 1 and not exists (
        select from annals.view_generation
        where view = dropped.view and id <> of_id and phase = 1
    ) then
        return 2;
    end if;
    -- A step holds the row of its lease to the end, so this waits for the steps that are running.
    delete from annals.lease where name = any (lease_names);
    delete from annals.view_checkpoint where generation = of_id;
    update annals.view_generation set phase = 3 where id = of_id;
    return 0;
end
$$;
