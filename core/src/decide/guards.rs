//! What must still be true when a decision is recorded: collected while its parts load, checked
//! when it is refused.

use crate::aggregate::commit::tagged;
use crate::append::{Condition, Expected};
use crate::error::StoreError;
use crate::position::{Incarnation, Partition, Position};
use crate::query::Query;
use crate::read::ReadQuery;
use crate::store::Store;
use crate::stream::StreamId;

/// What the parts of a decision rest on.
#[derive(Debug)]
pub struct Guards<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) streams: Vec<(StreamId, Expected)>,
    pub(super) queries: Vec<(Query, Position)>,
    pub(super) seen: Vec<(Partition, Position)>,
    /// Whether a part came from the cache, which may lag.
    pub(super) is_cached: bool,
    /// The incarnation of the log that was read.
    pub(super) incarnation: Incarnation,
}

impl<'a> Guards<'a> {
    pub(super) fn on(store: &'a dyn Store) -> Guards<'a> {
        Guards {
            store,
            streams: Vec::new(),
            queries: Vec::new(),
            seen: Vec::new(),
            is_cached: false,
            incarnation: store.incarnation(),
        }
    }

    /// The condition of all queries: nothing that matches one of them comes after the earliest
    /// moment of a reading.
    pub(super) fn condition(&self) -> Option<Condition> {
        let after = self.queries.iter().map(|(_, after)| *after).min()?;
        let query = self
            .queries
            .iter()
            .fold(Query::default(), |all, (query, _)| all.or(query.clone()));
        Some(Condition::none_matches(query).after(after))
    }

    /// Whether nothing moved since the parts were read: then what they show belongs to one moment.
    pub(super) async fn still_hold(&self) -> Result<bool, StoreError> {
        if self.store.incarnation() != self.incarnation {
            return Ok(false);
        }
        for (stream, expected) in &self.streams {
            if !expected.allows_writing(&self.store.stream_state(stream).await?) {
                return Ok(false);
            }
        }
        for (query, after) in &self.queries {
            let mut read = ReadQuery::of(query.clone()).after(*after).limit(1);
            loop {
                let page = tagged(self.store)?.read_query(read.clone()).await?;
                if !page.events.is_empty() {
                    return Ok(false);
                }
                // A page without events need not be the last one: the store may have stopped
                // looking.
                if page.end {
                    break;
                }
                read.after = page.scanned;
            }
        }
        Ok(true)
    }
}
