-- keeps a skip_decision; one about the same place and the same key is replaced
replace into annals_view_verdicts (view, partition, position, has_key, key, event, decided_at, reason)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
