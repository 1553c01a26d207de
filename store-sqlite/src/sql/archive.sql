-- removes the content of a stream's events below a version for good; id, digest and place stay
update annals_events
set kind = 0, payload = x'', tags = null, metadata = null
where stream = ?1 and version < ?2 and kind <> 0
