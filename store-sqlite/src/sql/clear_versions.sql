-- clears away the first so many versions of the rows of a dropped generation
delete from annals_view_versions
where generation = ?1
    and (key, up_to) < (
        coalesce((select key from annals_view_versions where generation = ?1 order by key, up_to limit 1 offset ?2), x''),
        coalesce((select up_to from annals_view_versions where generation = ?1 order by key, up_to limit 1 offset ?2), x'')
    )
