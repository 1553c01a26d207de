-- what a row of generation 1 was after one event.
insert into annals_view_versions (generation, key, up_to, after, recorded_at, value)
values (1, ?1, ?2, ?2 - 1, ?3, ?4);
