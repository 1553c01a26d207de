-- what a generation is for from now on
update annals_view_generations set phase = ?2 where id = ?1
