-- which history this connection reads, in one moment
select log, started, incarnation, head, head_event, known_event, is_standby
from annals.log_identity($1)
