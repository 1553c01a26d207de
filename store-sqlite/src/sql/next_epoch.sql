-- the epoch of a new grant, larger than all before
update annals_counters set epoch = epoch + 1 returning epoch
