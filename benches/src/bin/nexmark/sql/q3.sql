-- who sells in one category in three states
select printf('%s|%s|%s|%d', name, city, state, auctions.id)
from auctions
join persons on persons.id = auctions.seller
where category = 10 and state in ('or', 'id', 'ca')
