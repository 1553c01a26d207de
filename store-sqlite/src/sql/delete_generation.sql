-- nothing of this generation is left
delete from annals_view_generations where id = ?1
