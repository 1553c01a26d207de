-- forgets why events of a stream below a version became dead letters
update annals_view_dead_letters
set cause = ?3
where cause is not null and exists (
    select 1 from annals_events as events
    where events.id = annals_view_dead_letters.event and events.stream = ?1 and events.version < ?2
)
