//! Inserting rows that were made beforehand, a transaction for each batch or for each event.

use std::collections::HashMap;

use annals::StreamId;
use annals::store::{Digest, NewEvent};
use rusqlite::{CachedStatement, params};

use super::Baseline;
use crate::Outcome;
use crate::rate::{Rate, Watch};

/// An event with its digest, ready to be bound.
pub(super) type Ready = (NewEvent, Digest);

/// Keys and versions as a program that is the only writer would hold them.
#[derive(Default)]
pub(super) struct Known {
    pub(super) position: i64,
    pub(super) streams: HashMap<StreamId, (i64, i64)>,
    pub(super) kinds: HashMap<String, i64>,
}

impl Baseline {
    /// One transaction for each batch, each row by one prepared statement.
    ///
    /// # Errors
    ///
    /// Those of SQLite.
    pub fn append(&self, batches: Vec<(StreamId, Vec<NewEvent>)>) -> Outcome<Rate> {
        let count = batches.iter().map(|(_, events)| events.len()).sum();
        let ready = |events: Vec<NewEvent>| -> Vec<Ready> {
            events
                .into_iter()
                .map(|event| (event.digest(), event))
                .map(|(digest, event)| (event, digest))
                .collect()
        };
        let batches: Vec<_> = batches
            .into_iter()
            .map(|(stream, events)| (stream, ready(events)))
            .collect();
        let mut known = Known::default();
        let watch = Watch::start();
        let mut insert = self
            .connection
            .prepare_cached(include_str!("../sql/insert_event.sql"))?;
        for (stream, events) in &batches {
            self.connection
                .prepare_cached("begin immediate")?
                .execute([])?;
            self.insert(&mut insert, &mut known, stream, events)?;
            self.connection.prepare_cached("commit")?.execute([])?;
        }
        Ok(watch.stop(count))
    }

    /// Inserts what is appended together.
    pub(super) fn insert(
        &self,
        insert: &mut CachedStatement<'_>,
        known: &mut Known,
        stream: &StreamId,
        events: &[Ready],
    ) -> Outcome<()> {
        let count = events.len() as i64;
        if !known.streams.contains_key(stream) {
            let mut insert = self
                .connection
                .prepare_cached(include_str!("../sql/insert_stream.sql"))?;
            known
                .streams
                .insert(stream.clone(), (insert.insert([stream.as_str()])?, 0));
        }
        let (key, version) = known
            .streams
            .get_mut(stream)
            .ok_or("a stream without a key")?;
        for (index, (event, digest)) in (0_i64..).zip(events) {
            known.position += 1;
            *version += 1;
            let kind = match known.kinds.get(&*event.event_type) {
                Some(kind) => *kind,
                None => {
                    let mut insert = self
                        .connection
                        .prepare_cached(include_str!("../sql/insert_kind.sql"))?;
                    let kind = insert.insert([&*event.event_type])?;
                    known.kinds.insert(event.event_type.to_string(), kind);
                    kind
                }
            };
            insert.execute(params![
                known.position,
                *key,
                *version,
                kind,
                index,
                count,
                event.occurred_at.timestamp_micros(),
                // Read from the clock once for each append by Annals; any number does here.
                event.occurred_at.timestamp_micros(),
                event.id.as_uuid().as_bytes(),
                digest.0,
                None::<&str>,
                // Nothing, or as many bytes as Annals writes for a correlation.
                event
                    .metadata
                    .correlation
                    .map(|id| [&[1][..], id.as_bytes()].concat()),
                &*event.payload,
            ])?;
        }
        Ok(())
    }
}
