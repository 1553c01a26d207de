-- the version of its stream at which a row stands
select version from annals_view_stands where generation = ?1 and key = ?2
