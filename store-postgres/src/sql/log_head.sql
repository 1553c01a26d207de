-- the head and its event, the last change of a stream, the latest recorded time, and the
-- incarnation, in one moment
select head, head_event, changes, incarnation from annals.log_head()
