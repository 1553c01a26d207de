-- writes what a slot keeps under a key
replace into annals_view_state (generation, slot, key, value) values (?1, ?2, ?3, ?4)
