-- whether a generation is there and how far it has come, as the beginning of a page of rows: part 0
-- is the generation (position: since when its history is kept), 1 a checkpoint (value: its state),
-- 2 a row
create or replace function annals.view_state(of_generation bigint)
returns table (
    part bigint,
    key bytea,
    value bytea,
    entry bytea,
    slot bigint,
    partition bigint,
    "position" bigint,
    event uuid
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
begin
    return query
        select
            0::bigint, null::bytea, null::bytea, null::bytea, null::bigint, null::bigint,
            history_since, null::uuid
        from annals.view_generation
        where id = of_generation and phase <> 3
        union all
        select 1::bigint, null, state, null, slot, partition, position, event
        from annals.view_checkpoint
        where generation = of_generation;
end
$$;
