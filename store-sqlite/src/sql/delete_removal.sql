-- removes the version of a row that ends at a position, when it says that there was no row
delete from annals_view_versions where generation = ?1 and key = ?2 and up_to = ?3 and value is null
