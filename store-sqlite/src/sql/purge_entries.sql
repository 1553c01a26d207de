-- removes the first ?2 index entries of a dropped generation
delete from annals_view_entries
where generation = ?1
    and ("index", entry, key) < (
        coalesce((
            select "index" from annals_view_entries where generation = ?1
            order by "index", entry, key limit 1 offset ?2
        ), x''),
        coalesce((
            select entry from annals_view_entries where generation = ?1
            order by "index", entry, key limit 1 offset ?2
        ), x''),
        coalesce((
            select key from annals_view_entries where generation = ?1
            order by "index", entry, key limit 1 offset ?2
        ), x'')
    )
