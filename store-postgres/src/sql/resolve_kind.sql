-- the key of a kind, which is given one when it has none
select annals.resolve_kind($1, $2, $3, $4)
