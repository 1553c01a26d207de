-- keeps the stream version that an inline row includes
replace into annals_view_stream_versions (generation, key, version) values (?1, ?2, ?3)
