-- gives a category a key while there are fewer than ?2; afterwards no row is inserted, for ever
insert into annals_categories (name) select ?1 where (select max(key) from annals_categories) < ?2
