create table bids (auction integer, bidder integer, price integer, time integer);
