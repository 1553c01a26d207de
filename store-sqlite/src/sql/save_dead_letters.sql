-- sets an event aside; one that is already is replaced
replace into annals_view_parked (generation, key, partition, position, event, attempts, parked_at, cause)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
