-- every kind; a kind never changes
select key, type, schema_version, codec from annals.kind
