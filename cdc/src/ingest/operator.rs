//! What operators decided about an ingest, as events of a stream of its own: visible where the data
//! is.

use annals_core::{Append, Invalid, NewEvent, ReadStream, Store, StoreError, StreamId, Version};
use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;

const SKIPPED: &str = "cdc.skipped";
const RESYNC: &str = "cdc.resync";

/// A change that is not taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Skip {
    pub(super) commit: Lsn,
    pub(super) ordinal: u64,
    pub(super) reason: String,
}

/// What operators decided so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Decisions {
    pub(super) version: Version,
    pub(super) skips: Vec<Skip>,
    /// The version of the last order to compare all tables.
    pub(super) resync: Option<Version>,
}

impl Decisions {
    pub(super) fn skips(&self, commit: Lsn, ordinal: u64) -> bool {
        let same = |skip: &Skip| skip.commit == commit && skip.ordinal == ordinal;
        self.skips.iter().any(same)
    }
}

pub(super) fn stream(name: &str) -> Result<StreamId, Invalid> {
    StreamId::any(format!("$cdc_operator-{name}"))
}

pub(super) async fn decisions(store: &dyn Store, name: &str) -> Result<Decisions, StoreError> {
    let mut decisions = Decisions::default();
    let mut read = ReadStream::of(stream(name)?);
    loop {
        let page = store.read_stream(read.clone()).await?;
        decisions.version = page.state.version;
        for event in page.events {
            if &*event.event_type == RESYNC {
                decisions.resync = Some(event.version);
            } else if let Ok(skip) = serde_json::from_slice(&event.payload) {
                decisions.skips.push(skip);
            }
        }
        match page.next {
            Some(next) => read = read.resume(next),
            None => return Ok(decisions),
        }
    }
}

pub(super) async fn skip(store: &dyn Store, name: &str, skip: &Skip) -> Result<(), StoreError> {
    let payload = serde_json::to_vec(skip).map_err(|error| Invalid::new(error.to_string()))?;
    append(store, name, NewEvent::json(SKIPPED, payload)).await
}

pub(super) async fn resync(store: &dyn Store, name: &str, reason: &str) -> Result<(), StoreError> {
    let payload = serde_json::json!({ "reason": reason }).to_string();
    append(store, name, NewEvent::json(RESYNC, payload)).await
}

async fn append(store: &dyn Store, name: &str, event: NewEvent) -> Result<(), StoreError> {
    let append = Append::new(stream(name)?, [event]);
    let appended = store.append(append).await;
    appended
        .map(drop)
        .map_err(annals_core::AppendError::into_store_error)
}
