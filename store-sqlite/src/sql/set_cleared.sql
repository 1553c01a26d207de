-- the forgotten past is cleared away up to here, and of what ends at the next position up to but without a key
update annals_view_generations set cleared_to = ?2, cleared_key = ?3 where id = ?1
