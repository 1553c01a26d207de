-- keeps a skip decision; one of the same position and key is replaced
replace into annals_view_skips (view, partition, position, has_key, key, event, decided_at, reason)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
