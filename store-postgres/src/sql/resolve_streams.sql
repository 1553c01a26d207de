-- the keys, versions and statuses of streams; absent ones are given a key when that is asked for
select name, key, version, status from annals.resolve_streams($1, $2)
