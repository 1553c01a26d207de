-- how far the replica has come, and the last note in its log
select cursor, note from annals_replica
