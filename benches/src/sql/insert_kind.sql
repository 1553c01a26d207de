-- gives an event type its key
insert into annals_kinds (type, schema_version, codec, category) values (?1, 1, 'json', 0)
