-- keeps a version of a row; refused when a version of the key ends at the same position
insert into annals_view_versions (generation, key, up_to, after, recorded_at, value)
values (?1, ?2, ?3, ?4, ?5, ?6)
