-- removes the first ?2 touched keys of a dropped generation
delete from annals_view_touched
where generation = ?1
    and (key, position) < (
        coalesce((
            select key from annals_view_touched where generation = ?1
            order by key, position limit 1 offset ?2
        ), x''),
        coalesce((
            select position from annals_view_touched where generation = ?1
            order by key, position limit 1 offset ?2
        ), x'')
    )
