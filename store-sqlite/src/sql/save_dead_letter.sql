-- keeps a dead letter; one of the same key and position is replaced
replace into annals_view_dead_letters
    (generation, key, partition, position, event, attempts, dead_since, cause)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
