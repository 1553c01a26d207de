-- a generation with a forgotten past that is not cleared away yet
select id, cleared_to, cleared_key, history_since
from annals_view_generations
where cleared_to < history_since and keeps <> 0 and phase <> 3
limit 1
