-- locks the log until the transaction ends: positions are given under this lock alone, so they are
-- dense and in commit order, and its holder sees every position that was given. called by a
-- statement before the ones that look, because each sees what was committed when it began.
--
-- a lock that was waited for is handed to a process that sleeps, and no append goes on until that
-- one runs. so there are two queues: who is first in the second one leaves the first one, which
-- wakes the next while the log is still locked. the first is a lock of the session, because only
-- such a lock can be released before the transaction ends; an error or a cancelled statement
-- releases it too.
--
-- what it does after it was woken, every other append waits for. so its calls are expressions,
-- which cost less than statements; and it has no settings of its own, which would be undone when it
-- returns. every name is qualified instead.
create or replace function annals.lock_log() returns void
language plpgsql volatile
as $$
declare
    lock_key constant pg_catalog.int4 :=
        'annals.event'::pg_catalog.regclass::pg_catalog.oid::pg_catalog.int4;
    is_done pg_catalog.bool;
begin
    if pg_catalog.pg_try_advisory_xact_lock(1095650892, lock_key) then
        return;
    end if;
    begin
        is_done := pg_catalog.pg_advisory_lock(1095650895, lock_key) is not null;
        is_done := pg_catalog.pg_advisory_xact_lock(1095650892, lock_key) is not null;
        is_done := pg_catalog.pg_advisory_unlock(1095650895, lock_key);
    exception when others or query_canceled then
        is_done := pg_catalog.pg_advisory_unlock(1095650895, lock_key);
        raise;
    end;
end
$$;
