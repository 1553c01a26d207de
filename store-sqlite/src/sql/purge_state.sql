-- removes the first ?2 entries of state of a dropped generation; a blob sorts after every number
-- and text, so all go when there are fewer
delete from annals_view_state
where generation = ?1
    and (slot, key) < (
        coalesce((
            select slot from annals_view_state where generation = ?1
            order by slot, key limit 1 offset ?2
        ), x''),
        coalesce((
            select key from annals_view_state where generation = ?1
            order by slot, key limit 1 offset ?2
        ), x'')
    )
