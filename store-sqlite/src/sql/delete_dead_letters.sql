-- an event that was set aside is settled
delete from annals_view_parked where generation = ?1 and key = ?2 and partition = ?3 and position = ?4
