-- remembers the text of a function, in the transaction that applies it
insert into annals.function (name, checksum, release) values ($1, $2, $3)
on conflict (name) do update set checksum = excluded.checksum, release = excluded.release
