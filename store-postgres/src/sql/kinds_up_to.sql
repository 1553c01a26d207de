-- how far the log goes, and the kinds that its events of some types have up to there: a kind is there before its first event
select
    coalesce((select max(position) from annals.event), 0),
    array(select kind.key from annals.kind where kind.key <> 0 and kind.type = any ($1))
