-- clears a little of the history that generations have forgotten; false when nothing is left
select annals.clear_history($1)
