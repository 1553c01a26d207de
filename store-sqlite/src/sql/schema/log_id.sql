-- which log this is: one row, for ever
select id from annals_log
