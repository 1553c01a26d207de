-- switches the readers of a version to a generation, in one call; false when it is dropped
select annals.switch_generation($1)
