insert into bids values (?1, ?2, ?3, ?4)
