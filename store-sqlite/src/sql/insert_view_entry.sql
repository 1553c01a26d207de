-- a row is found by this entry of an index from now on
replace into annals_view_entries (generation, "index", entry, key) values (?1, ?2, ?3, ?4)
