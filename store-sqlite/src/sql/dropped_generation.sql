-- a generation that was dropped and is not cleared away yet
select id from annals_view_generations where phase = 3 limit 1
