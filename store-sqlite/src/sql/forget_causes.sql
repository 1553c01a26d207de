-- overwrites why archived events of a stream became dead letters. a generation has few dead
-- letters, so this scans them
update annals_view_dead_letters set cause = ?3
where generation in (select id from annals_view_generations) and cause is not null and exists (
    select 1 from annals_events as removed
    where removed.id = annals_view_dead_letters.event and removed.stream = ?1
        and removed.version < ?2
)
