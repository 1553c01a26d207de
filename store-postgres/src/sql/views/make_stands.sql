-- sees to it that there is a place for where these rows stand
select annals.make_stands($1, $2)
