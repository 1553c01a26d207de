-- adds an entry to an index
replace into annals_view_entries (generation, "index", entry, key) values (?1, ?2, ?3, ?4)
