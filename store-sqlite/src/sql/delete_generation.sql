-- removes a generation that was purged
delete from annals_view_generations where id = ?1
