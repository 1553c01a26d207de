-- moves a generation to another phase
update annals_view_generations set phase = ?2 where id = ?1
