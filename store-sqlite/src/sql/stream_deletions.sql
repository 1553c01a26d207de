-- every deletion of a stream, oldest first
select version, position, recorded_at from annals_deletions where stream = ?1 order by key
