-- locks the log until the transaction ends: positions are given under this lock alone, so they are
-- dense and in commit order, and its holder sees every position that was given. called by a
-- statement before the ones that look, because each sees what was committed when it began.
create or replace function annals.lock_log() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
    perform pg_advisory_xact_lock(1095650892, 'annals.event'::regclass::oid::integer);
end
$$;
