-- a row of generation 1 as it is now.
select value from annals_view_rows where generation = 1 and key = ?1;
