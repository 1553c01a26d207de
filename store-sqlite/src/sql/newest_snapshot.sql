-- the newest snapshot of a stream by a fold, at or before a version
select version, codec, payload
from annals_snapshots
where stream = (select key from annals_streams where name = ?1) and fold = ?2 and fold_version = ?3
    and version <= ?4
order by version desc
limit 1
