-- removes the first ?2 rows of a dropped generation
delete from annals_view_rows
where generation = ?1
    and key < coalesce((
        select key from annals_view_rows where generation = ?1
        order by key limit 1 offset ?2
    ), x'')
