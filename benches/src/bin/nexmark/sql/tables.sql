create table bids (auction integer, bidder integer, price integer, time integer);
create table auctions (id integer, seller integer, category integer, time integer, expires integer);
create table persons (id integer, name text, city text, state text, time integer);
create index bids_of_auction on bids (auction);
create index auctions_by_id on auctions (id);
create index persons_by_id on persons (id);
