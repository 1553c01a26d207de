-- what decides whether a commit survives a power cut
select current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit')
