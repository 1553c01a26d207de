-- removes what a slot keeps under a key
delete from annals_view_state where generation = ?1 and slot = ?2 and key = ?3
