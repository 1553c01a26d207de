-- lets one transaction at a time switch or drop a generation of a view
create or replace function annals.lock_view(of_id bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
    perform from annals.view_generation
    where view = (select view from annals.view_generation where id = of_id)
    order by id
    for no key update;
end
$$;
