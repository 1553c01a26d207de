-- removes the first ?2 stream versions of inline rows of a dropped generation
delete from annals_view_stream_versions
where generation = ?1
    and key < coalesce((
        select key from annals_view_stream_versions where generation = ?1
        order by key limit 1 offset ?2
    ), x'')
