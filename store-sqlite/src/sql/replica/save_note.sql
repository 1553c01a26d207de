-- keeps the last note of the replica's log
update annals_replica set note = ?1
