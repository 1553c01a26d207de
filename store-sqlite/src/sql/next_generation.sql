-- the id of a new generation, larger than all before
update annals_numbers set generation = generation + 1 returning generation
