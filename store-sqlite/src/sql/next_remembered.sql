-- the first key with a version from a text on, up to but without another
select key from annals_view_versions indexed by annals_view_versions_by_key where generation = ?1 and key >= ?2 and key < ?3 order by key limit 1
