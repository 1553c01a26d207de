-- what a slot of a generation keeps for itself besides its rows, such as windows that are open. it
-- is rewritten for ever: values are not compressed, and what is dead is cleared away by its number.
create table annals.view_state (
    generation bigint not null,
    slot bigint not null,
    key bytea not null,
    value bytea not null,
    primary key (generation, slot, key)
) with (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 2000,
    toast.autovacuum_vacuum_scale_factor = 0,
    toast.autovacuum_vacuum_threshold = 20000
);

alter table annals.view_state alter column value set storage external;
