-- a whole step: checked, as check_step says, and written when it is not refused
create or replace function annals.commit_step(
    of_generation bigint,
    of_lease bytea,
    of_owner bytea,
    of_epoch bigint,
    of_slot bigint,
    of_partition bigint,
    from_position bigint,
    to_position bigint,
    to_event uuid,
    to_state bytea,
    changes annals.view_changes,
    out refusal bigint,
    out owner bytea,
    out number bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
    select checked.refusal, checked.owner, checked.number into refusal, owner, number
    from annals.check_step(
        of_generation, of_lease, of_owner, of_epoch, of_slot, of_partition, from_position, true
    ) as checked;
    if refusal = 0 then
        perform annals.write_step(
            of_generation, of_slot, of_partition, to_position, to_event, to_state, changes
        );
    end if;
end
$$;
