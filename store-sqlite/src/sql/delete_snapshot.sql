-- removes one snapshot
delete from annals_snapshots
where stream = (select key from annals_streams where name = ?1) and fold = ?2 and fold_version = ?3
    and version = ?4
