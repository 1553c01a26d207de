-- clears away a little of the past that generations have forgotten; false when nothing is left
select annals.clear_history($1)
