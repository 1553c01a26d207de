-- the index entries of a row
select entries from annals_view_rows where generation = ?1 and key = ?2
