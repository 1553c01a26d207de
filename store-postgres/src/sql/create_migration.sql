-- the migrations that were applied, and the text of each function by its checksum, with the release
-- of Annals that wrote it
create table if not exists annals.migration (
    version integer primary key,
    applied_at bigint not null
);
create table if not exists annals.function (
    name text collate "C" primary key,
    checksum text not null,
    release integer[] not null
);
