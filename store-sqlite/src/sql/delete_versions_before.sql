-- removes the versions of a row that end before a position
delete from annals_view_versions where generation = ?1 and key = ?2 and up_to < ?3
