-- what store-sqlite sets on its connections, so that each commit is flushed to the disk and as much
-- is cached
pragma journal_mode = wal;
pragma synchronous = full;
pragma wal_autocheckpoint = 2048;
pragma journal_size_limit = 67108864;
pragma fullfsync = on;
pragma checkpoint_fullfsync = on;
pragma cache_size = -8192;
pragma temp_store = memory;
