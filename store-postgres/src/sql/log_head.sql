-- how far the log goes, the last change of a stream, and the latest recorded time, in one moment
select head, changes, recorded from annals.log_head()
