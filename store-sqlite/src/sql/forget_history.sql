-- moves the start of a generation's history forward
update annals_view_generations set history_since = ?2 where id = ?1 and history_since < ?2
