-- the stream version that an inline row includes
select version from annals_view_stream_versions where generation = ?1 and key = ?2
