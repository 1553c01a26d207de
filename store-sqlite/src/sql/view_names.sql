-- the names of the views that have a generation, in order
select distinct view
from annals_view_generations indexed by annals_view_generations_by_view
where phase <> 3
order by view
