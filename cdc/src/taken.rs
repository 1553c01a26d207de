//! How far a log or a file was taken, and what tells it from another one in its place.

use std::collections::BTreeMap;

use annals_core::EventId;

use crate::ingest::{Chunk, Followed, Mark, Resume, SourceError, SourceFailure};
use crate::record::Record;

/// How far each partition of a log was taken; of a file, its lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    positions: BTreeMap<u32, u64>,
    followed: Followed,
}

impl Taken {
    /// As the last mark says, which has to be of this source. One of an older program does not say
    /// what the last events were.
    pub(crate) fn after(
        ingest: &str,
        source: &str,
        last: Option<&Mark>,
    ) -> Result<Taken, SourceError> {
        let Some(last) = last else {
            return Ok(Taken::default());
        };
        if *last.source != *source {
            return Err(SourceError::new(
                SourceFailure::Stop,
                format!(
                    "the last mark of `{ingest}` is of another source, `{}`, and this one is \
                     `{source}`: give this ingest another name",
                    last.source
                ),
            ));
        }
        let positions = match &last.resume {
            Some(Resume::Positions(positions)) => positions.clone(),
            _ => BTreeMap::new(),
        };
        Ok(Taken {
            positions,
            followed: last.followed.clone().unwrap_or_default(),
        })
    }

    /// This was taken last, of its partition.
    pub(crate) fn add(&mut self, partition: u32, position: u64, id: EventId) {
        self.positions.insert(partition, position);
        self.followed.last.insert(partition, id);
    }

    /// Up to where a partition was taken.
    pub(crate) fn position(&self, partition: u32) -> u64 {
        self.positions.get(&partition).copied().unwrap_or_default()
    }

    /// What was taken last of a partition, where it is known.
    pub(crate) fn last(&self, partition: u32) -> Option<EventId> {
        self.followed.last.get(&partition).copied()
    }

    /// The partitions of which something was taken, and up to where.
    pub(crate) fn positions(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.positions.iter().map(|(of, position)| (*of, *position))
    }

    /// How many partitions there were, where it is known.
    pub(crate) fn partitions(&self) -> Option<u32> {
        Some(self.followed.partitions).filter(|count| *count > 0)
    }

    /// How many partitions there are.
    pub(crate) fn has_partitions(&mut self, count: u32) {
        self.followed.partitions = count;
    }

    /// What was taken since, with how far that is.
    pub(crate) fn chunk(&self, source: String, records: Vec<Record>) -> Chunk {
        let mut chunk = Chunk::repeatable(source, records, self.positions.clone());
        chunk.followed = Some(self.followed.clone());
        chunk
    }
}
