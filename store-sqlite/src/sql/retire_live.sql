-- the live generation of a view's version becomes a kept one
update annals_view_generations set phase = 2 where view = ?1 and version = ?2 and phase = 1
