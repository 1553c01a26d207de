-- a generation with forgotten history that is not purged yet
select id, purged_to, purged_key, history_since
from annals_view_generations
where purged_to < history_since and history <> 0 and phase <> 3
limit 1
