-- persons who opened an auction in the window of ten seconds in which they registered
select distinct printf('%d|%s|%d', persons.id, name, persons.time / 10000 * 10000)
from persons
join auctions on auctions.seller = persons.id
    and auctions.time / 10000 = persons.time / 10000
