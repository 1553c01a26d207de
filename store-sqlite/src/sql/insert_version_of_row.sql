-- keeps what a row was after a run of events; refused when a version of the key ends there already
insert into annals_view_versions (generation, key, up_to, after, recorded_at, value) values (?1, ?2, ?3, ?4, ?5, ?6)
