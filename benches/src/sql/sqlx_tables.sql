-- the columns and indexes of Annals' own table, with positions from a sequence: what a program that
-- writes by hand has.
create table baseline.by_hand (
    position bigint generated always as identity primary key,
    stream bigint not null,
    version bigint not null,
    kind integer not null,
    append_index integer not null,
    append_events integer not null,
    occurred_at bigint not null,
    recorded_at bigint not null,
    id uuid not null unique,
    digest uuid not null,
    tags text collate "C",
    metadata bytea,
    payload bytea not null,
    unique (stream, version)
);
create index on baseline.by_hand (kind, position);
