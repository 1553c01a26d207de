-- gives category, type, schema version and codec a key
insert into annals_kinds (type, schema_version, codec, category) values (?1, ?2, ?3, ?4)
