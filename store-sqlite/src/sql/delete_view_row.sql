-- there is no such row from now on
delete from annals_view_rows where generation = ?1 and key = ?2
