-- the generations of these views that are not dropped, each with its checkpoints and the leases
-- that are about it: all of one moment, and whether each lease is free
select
    g.id, g.view, g.version, g.phase, g.history, g.inline, g.partitions, g.slots, g.log,
    g.started_at, g.history_since, g.event_types, g.indexes,
    c.slots, c.partitions, c.positions, c.events, c.states,
    l.names, l.owners, l.epochs, l.ends, l.free
from annals.view_generation g
cross join lateral (
    select
        coalesce(array_agg(slot order by slot, partition), '{}') as slots,
        coalesce(array_agg(partition order by slot, partition), '{}') as partitions,
        coalesce(array_agg(position order by slot, partition), '{}') as positions,
        coalesce(array_agg(event order by slot, partition), '{}') as events,
        coalesce(array_agg(state order by slot, partition), '{}') as states
    from annals.view_checkpoint
    where generation = g.id
) c
cross join lateral (
    select
        coalesce(array_agg(name order by name), '{}') as names,
        coalesce(array_agg(owner order by name), '{}') as owners,
        coalesce(array_agg(epoch order by name), '{}') as epochs,
        coalesce(array_agg(expires_at order by name), '{}') as ends,
        coalesce(
            array_agg(is_released or expires_at <= coalesce($2, annals.now_micros()) order by name),
            '{}'
        ) as free
    from annals.lease
    -- Names begin with the view and the generation, each before a slash; a zero follows the slash.
    where name >= g.view || convert_to('/' || g.id || '/', 'UTF8')
        and name < g.view || convert_to('/' || g.id || '0', 'UTF8')
) l
where g.view = any($1) and g.phase <> 3
order by g.view, g.id
