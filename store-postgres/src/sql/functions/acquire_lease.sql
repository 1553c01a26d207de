-- takes a lease that is free or has expired, and says who holds it then. `at` is the moment; null:
-- by the clock of the server.
create or replace function annals.acquire_lease(
    of_name bytea,
    asker bytea,
    ttl bigint,
    at bigint,
    out is_granted boolean,
    out owner bytea,
    out epoch bigint,
    out expires_at bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    moment bigint := coalesce(at, annals.now_micros());
begin
    -- The epoch is drawn once more when the lease was held: under its row lock, so after every
    -- epoch that it ever had.
    insert into annals.lease (name, owner, epoch, expires_at, is_released)
    values (
        of_name, asker, nextval('annals.lease_epoch'), least(moment + ttl, 253402300799000000),
        false
    )
    on conflict (name) do update
    set
        owner = excluded.owner,
        epoch = nextval('annals.lease_epoch'),
        expires_at = excluded.expires_at,
        is_released = false
    where lease.is_released or lease.expires_at <= moment;
    is_granted := found;
    select lease.owner, lease.epoch, lease.expires_at into owner, epoch, expires_at
    from annals.lease
    where lease.name = of_name;
end
$$;
