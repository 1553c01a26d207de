-- names the incarnation that the server has been in since it recovered, once
create or replace function annals.begin_incarnation() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
    insert into annals.incarnation as run (one, id, relation)
    values (1, gen_random_uuid(), 'annals.event'::regclass::oid)
    on conflict (one) do update set id = excluded.id, relation = excluded.relation
    where run.relation <> excluded.relation;
end
$$;
