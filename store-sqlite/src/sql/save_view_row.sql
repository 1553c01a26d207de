-- writes a row; without a second look-up, because the table has one key and no other index
replace into annals_view_rows (generation, key, entries, value) values (?1, ?2, ?3, ?4)
