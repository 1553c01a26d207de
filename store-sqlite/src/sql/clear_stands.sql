-- clears away where the first so many rows of a dropped generation stand
delete from annals_view_stands
where generation = ?1
    and key < coalesce((select key from annals_view_stands where generation = ?1 order by key limit 1 offset ?2), x'')
