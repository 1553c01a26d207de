//! Snapshots, beside the log.

use annals_core::{FoldId, Snapshot, StreamId, Version};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};

use crate::statements as sql;
use crate::stream_cache::StreamStatements;
use crate::streams::number;
use crate::write_tx::{Stop, WriteTx};

pub(crate) fn save(write_tx: &mut WriteTx, snapshot: &Snapshot) -> Result<(), Stop> {
    let mut statements = StreamStatements::of(&write_tx.connection);
    let (stream, _) = write_tx
        .stream_cache
        .keyed(&mut statements, &snapshot.stream)?;
    write_tx
        .connection
        .prepare_cached(sql::SAVE_SNAPSHOT)?
        .execute((
            stream,
            &snapshot.fold.name,
            snapshot.fold.version,
            snapshot.version.get().cast_signed(),
            &snapshot.codec,
            &*snapshot.payload,
        ))?;
    Ok(())
}

pub(crate) fn newest(
    connection: &Connection,
    stream: StreamId,
    fold: FoldId,
    at_most: Version,
) -> Result<Option<Snapshot>, rusqlite::Error> {
    let wanted = (
        stream.as_str(),
        &fold.name,
        fold.version,
        at_most.get().cast_signed(),
    );
    let found = connection
        .prepare_cached(sql::NEWEST_SNAPSHOT)?
        .query_row(wanted, |row| {
            Ok((
                number(row, 0)?,
                row.get::<_, String>(1)?,
                row.get::<_, Vec<u8>>(2)?,
            ))
        })
        .optional()?;
    Ok(found.map(|(version, codec, payload)| {
        Snapshot::new(
            stream,
            fold,
            Version::new(version),
            codec,
            Bytes::from(payload),
        )
    }))
}

pub(crate) fn delete(
    write_tx: &mut WriteTx,
    stream: &StreamId,
    fold: &FoldId,
    version: Version,
) -> Result<(), Stop> {
    let row = (
        stream.as_str(),
        &fold.name,
        fold.version,
        version.get().cast_signed(),
    );
    write_tx
        .connection
        .prepare_cached(sql::DELETE_SNAPSHOT)?
        .execute(row)?;
    Ok(())
}
