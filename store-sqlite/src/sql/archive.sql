-- archives a stream's events below a version: the content is removed for good; id, digest, version and position stay
update annals_events
set kind = 0, payload = x'', tags = null, metadata = null
where stream = ?1 and version < ?2 and kind <> 0
