-- an event touched a key; one that is known already stays
insert or ignore into annals_view_touched (generation, key, position) values (?1, ?2, ?3)
