-- questions are about this position and later ones from now on
update annals_view_generations set history_since = ?2 where id = ?1 and history_since < ?2
