-- removes every snapshot of a stream
delete from annals_snapshots where stream = ?1
