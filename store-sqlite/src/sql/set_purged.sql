-- keeps how far forgotten history is purged
update annals_view_generations set purged_to = ?2, purged_key = ?3 where id = ?1
