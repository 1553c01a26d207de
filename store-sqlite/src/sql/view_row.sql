-- the value of a row
select value from annals_view_rows where generation = ?1 and key = ?2
