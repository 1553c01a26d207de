-- what readers of this version of a view saw until now is kept
update annals_view_generations set phase = 2 where view = ?1 and version = ?2 and phase = 1
