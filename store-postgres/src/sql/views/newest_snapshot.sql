-- the newest snapshot of a stream by a fold, at or below a version
select version, codec, payload
from annals.snapshot
where stream = $1 and fold = $2 and fold_version = $3 and version <= $4
order by version desc
limit 1
