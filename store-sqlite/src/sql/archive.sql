-- archives a stream's events below a version: the content is removed for good; id, digest, version,
-- position, kind and times stay
update annals_events set kind = -kind, payload = x'', tags = null, metadata = null
where stream = ?1 and version < ?2 and kind > 0
