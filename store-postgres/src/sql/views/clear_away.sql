-- clears away a little of what was dropped or forgotten; false when nothing is left
select annals.clear_generation($1) or annals.clear_history($1)
