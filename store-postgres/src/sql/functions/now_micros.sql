-- the moment by the clock of the server
create or replace function annals.now_micros() returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
    return (extract(epoch from clock_timestamp()) * 1000000)::bigint;
end
$$;
