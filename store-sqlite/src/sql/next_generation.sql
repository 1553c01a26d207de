-- the id of a new generation, larger than all before
update annals_counters set generation = generation + 1 returning generation
