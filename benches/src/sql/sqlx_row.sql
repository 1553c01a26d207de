-- a row of generation 1 as it is now.
select value from annals.view_row where generation = 1 and key = $1
