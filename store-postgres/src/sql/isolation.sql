-- how the open transaction is isolated from others
select current_setting('transaction_isolation')
