-- removes one version of a row
delete from annals_view_versions where generation = ?1 and up_to = ?2 and key = ?3
