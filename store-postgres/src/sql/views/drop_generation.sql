-- drops a generation with its leases, in one call: 0 done, 1 dropped already, 2 it is the only live
-- one of its view
select annals.drop_generation($1, $2)
