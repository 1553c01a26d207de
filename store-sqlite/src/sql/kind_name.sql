-- type, schema version and codec of a key; they never change
select type, schema_version, codec from annals_kinds where key = ?1
