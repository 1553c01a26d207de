-- sees to it that there is a place for where these rows of a generation stand, under the lease of a step
select annals.make_stands_of_step($1, $2, $3)
