-- a generation that was dropped and is not purged yet
select id from annals_view_generations where phase = 3 limit 1
