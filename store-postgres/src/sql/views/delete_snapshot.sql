-- forgets the snapshot at a version
delete from annals.snapshot where stream = $1 and fold = $2 and fold_version = $3 and version = $4
