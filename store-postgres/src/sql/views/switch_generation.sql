-- switches the readers of a version to a generation, in one call; false when it is gone
select annals.switch_generation($1)
