-- for a step: as ensure_stream_versions, of one generation, which is not dropped while the lease is
-- locked. where the one or the other is gone nothing is made.
create or replace function annals.ensure_step_stream_versions(
    of_generation bigint,
    of_lease bytea,
    keys bytea[]
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
    if not exists (
        select from unnest(keys) as given(key)
        where not exists (
            select from annals.view_stream_version as kept
            where kept.generation = of_generation and kept.key = given.key
        )
    ) then
        return;
    end if;
    perform from annals.lease where name = of_lease for key share;
    if not found then
        return;
    end if;
    -- A statement of its own, after the lock: it sees whether the generation was dropped before.
    insert into annals.view_stream_version (generation, key, version)
    select of_generation, given.key, 0
    from unnest(keys) as given(key)
    where exists (select from annals.view_generation where id = of_generation and phase <> 3)
    order by given.key
    on conflict do nothing;
end
$$;
