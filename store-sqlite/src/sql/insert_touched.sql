-- keeps that an event touched a key; idempotent
insert or ignore into annals_view_touched (generation, key, position) values (?1, ?2, ?3)
