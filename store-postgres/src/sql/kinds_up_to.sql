-- the head, and the kinds of some types up to there: a kind is there before its first event
select
    coalesce((select pg_catalog.max(position) from annals.event), 0),
    array(select kind.key from annals.kind where kind.key <> 0 and kind.type = any ($1))
