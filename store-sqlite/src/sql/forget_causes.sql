-- forgets why events of a stream below a version became dead letters, of which each generation has few
update annals_view_dead_letters
set cause = ?3
where generation in (select id from annals_view_generations) and cause is not null and exists (
    select 1 from annals_events as removed
    where removed.id = annals_view_dead_letters.event and removed.stream = ?1 and removed.version < ?2
)
