-- the oldest generation with an id above another that was dropped and is not cleared yet
select id from annals.view_generation where phase = 3 and id > $1 order by id limit 1
