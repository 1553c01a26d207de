-- the newest snapshot of a stream
select version, payload from annals_snapshots where stream = ?1 order by version desc limit 1
