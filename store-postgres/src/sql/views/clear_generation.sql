-- the end of a generation that was dropped, of which nothing is left
delete from annals.view_generation where id = $1 and phase = 3
