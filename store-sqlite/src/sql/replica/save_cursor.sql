-- moves the cursor of the replica, in the transaction that applies what is before it
update annals_replica set cursor = ?1
