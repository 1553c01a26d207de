-- version 5: views whose rows travel with appends: each row stands at a version of its stream, also where there is no row any more.

alter table annals_view_generations add column inline integer not null default 0;

create table annals_view_stands (
    generation integer not null,
    key text not null,
    version integer not null,
    primary key (generation, key)
) strict, without rowid;
