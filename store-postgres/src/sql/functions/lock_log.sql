-- locks the log until the transaction ends: positions are given under this lock alone, so they are
-- dense and in commit order, and its holder sees every position that was given. called by a
-- statement before the ones that look, because each sees what was committed when it began.
--
-- a lock that was waited for is handed to a process that sleeps, and nobody appends until that one
-- runs; so it is tried for a while, with longer and longer naps, before this waits in the queue.
create or replace function annals.lock_log() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
    lock_key constant integer := 'annals.event'::regclass::oid::integer;
begin
    for tries in 1..40 loop
        if pg_try_advisory_xact_lock(1095650892, lock_key) then
            return;
        end if;
        perform pg_sleep(least(0.0004 * tries, 0.01) * (0.5 + random()));
    end loop;
    perform pg_advisory_xact_lock(1095650892, lock_key);
end
$$;
