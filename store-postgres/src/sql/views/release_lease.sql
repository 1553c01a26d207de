-- gives a lease back that nobody took since; its row stays
update annals.lease set given_back = true where name = $1 and owner = $2 and epoch = $3 and not given_back
