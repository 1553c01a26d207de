-- removes the first ?2 versions of the rows of a dropped generation
delete from annals_view_versions
where generation = ?1
    and (up_to, key) < (
        coalesce((
            select up_to from annals_view_versions where generation = ?1
            order by up_to, key limit 1 offset ?2
        ), x''),
        coalesce((
            select key from annals_view_versions where generation = ?1
            order by up_to, key limit 1 offset ?2
        ), x'')
    )
