-- which log this is
select id from annals.log
