//! A transaction that is too large for one chunk: it is given by parts.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::super::transaction::Messages;
use super::{PART_BYTES, Session};
use crate::ingest::{Chunk, Partial, Resume, SourceError};
use crate::lsn::Lsn;
use crate::record::Record;

/// A transaction that is given by parts.
#[derive(Debug)]
pub(super) struct Large {
    pub(super) messages: Messages,
    /// The first record of the next part.
    pub(super) ahead: Option<Record>,
    pub(super) commit: Lsn,
    pub(super) end: Lsn,
    pub(super) time: DateTime<Utc>,
}

impl Session {
    /// Whether no mark holds the record.
    pub(super) fn is_new(&self, commit: Lsn, end: Lsn, record: &Record) -> bool {
        let is_known = match self.known {
            Some(known) if commit < known.commit => true,
            Some(known) if commit == known.commit => record.at.ordinal < known.through,
            _ => false,
        };
        end > self.resume && !is_known
    }

    /// The next part of a large transaction; nothing when it holds no record.
    pub(super) async fn part(&mut self) -> Result<Option<Chunk>, SourceError> {
        let Some(mut large) = self.large.take() else {
            return Ok(None);
        };
        let mut records: Vec<Record> = large.ahead.take().into_iter().collect();
        // Of records that are new: what is known may be more than a part.
        let mut bytes = 0;
        // Read one record ahead, so that the last part is known to be the last.
        let is_last = loop {
            let Some(message) = large.messages.next()? else {
                break true;
            };
            let is_full = records.len() >= self.settings.part_records || bytes >= PART_BYTES;
            if let Some(record) = self.decode(&message).await?
                && self.is_new(large.commit, large.end, &record)
            {
                if is_full {
                    large.ahead = Some(record);
                    break false;
                }
                bytes += message.len();
                records.push(record);
            }
        };
        let mut chunk = Chunk {
            source: Arc::clone(&self.source),
            ..Chunk::default()
        };
        if is_last {
            if records.is_empty() && large.end <= self.resume {
                return Ok(None);
            }
            chunk.resume = Some(Resume::Lsn(large.end));
            chunk.transactions = 1;
            self.idle = self.idle.max(large.end);
            self.given = self.given.max(large.end);
            self.status.known_to = self.status.known_to.max(Some(large.time));
        } else {
            chunk.partial = Some(Partial {
                commit: large.commit,
                through: records.last().map_or(0, |last| last.at.ordinal + 1),
            });
            self.large = Some(large);
        }
        chunk.records = records;
        Ok(Some(chunk))
    }
}
