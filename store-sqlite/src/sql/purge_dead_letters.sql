-- removes the first ?2 dead letters of a dropped generation
delete from annals_view_dead_letters
where generation = ?1
    and (key, partition, position) < (
        coalesce((
            select key from annals_view_dead_letters where generation = ?1
            order by key, partition, position limit 1 offset ?2
        ), x''),
        coalesce((
            select partition from annals_view_dead_letters where generation = ?1
            order by key, partition, position limit 1 offset ?2
        ), x''),
        coalesce((
            select position from annals_view_dead_letters where generation = ?1
            order by key, partition, position limit 1 offset ?2
        ), x'')
    )
