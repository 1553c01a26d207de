-- a deleted stream is written to again: active, and nothing of it truncated
update annals_streams set status = 0, truncated_before = 0 where key = ?1
