-- keeps a snapshot in place of the one at the same version
insert into annals.snapshot (stream, fold, fold_version, version, codec, payload)
values ($1, $2, $3, $4, $5, $6)
on conflict (stream, fold, fold_version, version) do update
set codec = excluded.codec, payload = excluded.payload
