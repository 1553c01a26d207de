-- where a row stands, and its value when there is one
select stands.version, rows.value
from annals_view_stands as stands
left join annals_view_rows as rows on rows.generation = stands.generation and rows.key = stands.key
where stands.generation = ?1 and stands.key = ?2
