-- the key of category, type, schema version and codec
select key
from annals_kinds
where type = ?1 and schema_version = ?2 and codec = ?3 and category = ?4
