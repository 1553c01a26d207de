-- removes a row
delete from annals_view_rows where generation = ?1 and key = ?2
