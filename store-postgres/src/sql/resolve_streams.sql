-- where streams stand; those that are absent are given a key when that is asked for
select name, key, version, status from annals.resolve_streams($1, $2)
