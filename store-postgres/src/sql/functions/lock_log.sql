-- locks the log until the transaction ends: positions are given under this lock alone, so they are
-- dense and in commit order, and its holder sees every position that was given. called by a
-- statement before the ones that look, because each sees what was committed when it began.
--
-- a lock that was waited for is handed to a process that sleeps, and no append goes on until that
-- one runs. so there are two queues: who is first in the second one leaves the first one, which
-- wakes the next while the log is still locked. the first is a lock of the session, because only
-- such a lock can be released before the transaction ends; an error or a cancelled statement
-- releases it too.
create or replace function annals.lock_log() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
    lock_key constant integer := 'annals.event'::regclass::oid::integer;
begin
    if pg_try_advisory_xact_lock(1095650892, lock_key) then
        return;
    end if;
    begin
        perform pg_advisory_lock(1095650895, lock_key);
        perform pg_advisory_xact_lock(1095650892, lock_key);
        perform pg_advisory_unlock(1095650895, lock_key);
    exception when others or query_canceled then
        perform pg_advisory_unlock(1095650895, lock_key);
        raise;
    end;
end
$$;
