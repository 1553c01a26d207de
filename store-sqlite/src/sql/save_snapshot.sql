-- keeps a snapshot; one of the same stream, fold and version is replaced
insert into annals_snapshots (stream, fold, fold_version, version, codec, payload)
values (?1, ?2, ?3, ?4, ?5, ?6)
on conflict (stream, fold, fold_version, version)
do update set codec = excluded.codec, payload = excluded.payload
