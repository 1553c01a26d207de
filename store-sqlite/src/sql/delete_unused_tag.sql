-- removes the name of a tag that no event has any more
delete from annals_tags
where key = ?1 and not exists (select 1 from annals_event_tags where tag = ?1)
