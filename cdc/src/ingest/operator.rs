//! What operators decided about an ingest, as events of a stream of its own: visible where the data
//! is.

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_core::{
    Append, Failure, Invalid, NewEvent, Position, ReadStream, RecordedEvent, Store, StoreError,
    StreamId, Version,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::columns::Columns;
use crate::lsn::Lsn;
use crate::record::{At, Body, Record, RowOp};
use crate::schema::TableName;

const SKIPPED: &str = "cdc.skipped";
const MESSAGE_SKIPPED: &str = "cdc.message_skipped";
const ROW_SKIPPED: &str = "cdc.row_skipped";
const RESYNC: &str = "cdc.resync";
const TABLE_RESYNC: &str = "cdc.table_resync";

/// A change that is not taken in, until all tables are to be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Skip {
    pub(super) commit: Lsn,
    pub(super) ordinal: u64,
    pub(super) reason: String,
}

/// A message of a log or a file that is not taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MessageSkip {
    pub(super) partition: u32,
    pub(super) position: u64,
    pub(super) reason: String,
}

/// A row that is not read from a table, until a table with it is to be read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RowSkip {
    pub(super) table: TableName,
    pub(super) key: Columns,
    pub(super) reason: String,
}

/// A table that is to be read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableResync {
    pub(super) table: TableName,
    pub(super) reason: String,
}

/// What operators decided so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Decisions {
    pub(super) version: Version,
    pub(super) skips: Vec<Skip>,
    pub(super) messages: Vec<MessageSkip>,
    pub(super) rows: Vec<RowSkip>,
    /// The version of the last request to compare all tables.
    pub(super) resync: Option<Version>,
    /// The tables that are to be read again, with the versions and positions of the requests.
    pub(super) tables: Vec<(Version, Position, TableName)>,
}

impl Decisions {
    /// Whether a change is not taken in. A message is skipped by its source: what has no LSN of its
    /// own has the same one as others.
    pub(super) fn skips(&self, at: At) -> bool {
        let same = |skip: &Skip| skip.commit == at.lsn && skip.ordinal == at.ordinal;
        at.message.is_none() && self.skips.iter().any(same)
    }

    /// Whether a row of a table is not read.
    pub(super) fn skips_row(&self, record: &Record) -> bool {
        let Body::Row(row) = &record.body else {
            return false;
        };
        row.op == RowOp::Read
            && self.rows.iter().any(|skip| {
                let is_same = |(name, value): (&Arc<str>, _)| row.key.get(name) == Some(value);
                skip.table == row.table
                    && skip.key.len() == row.key.len()
                    && skip.key.iter().all(is_same)
            })
    }

    /// The tables that were requested to be read again after version `followed`, each with the
    /// position of its last request.
    pub(super) fn tables_after(&self, followed: Option<Version>) -> Vec<(TableName, Position)> {
        let requests = self.tables.iter();
        let requests = requests.filter(|(version, _, _)| Some(*version) > followed);
        let last: BTreeMap<_, _> = requests
            .map(|(_, position, table)| (table.clone(), *position))
            .collect();
        last.into_iter().collect()
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
            match &*event.event_type {
                RESYNC => {
                    decisions.resync = Some(event.version);
                    decisions.rows.clear();
                    // Another server, or one that was restored, uses the same LSNs for other
                    // transactions, and the new slot gives none of those that were skipped.
                    decisions.skips.clear();
                }
                ROW_SKIPPED => decisions.rows.push(decision(&event)?),
                SKIPPED => decisions.skips.push(decision(&event)?),
                TABLE_RESYNC => {
                    let request: TableResync = decision(&event)?;
                    decisions.rows.retain(|skip| skip.table != request.table);
                    let request = (event.version, event.position, request.table);
                    decisions.tables.push(request);
                }
                MESSAGE_SKIPPED => decisions.messages.push(decision(&event)?),
                _ => return Err(unreadable(&event)),
            }
        }
        match page.next {
            Some(next) => read = read.resume(next),
            None => return Ok(decisions),
        }
    }
}

/// A decision that cannot be read may be one to skip something.
fn decision<T: DeserializeOwned>(event: &RecordedEvent) -> Result<T, StoreError> {
    serde_json::from_slice(&event.payload).map_err(|error| unreadable(event).because(error))
}

fn unreadable(event: &RecordedEvent) -> StoreError {
    StoreError::new(
        Failure::Incompatible,
        format!(
            "the decision `{}` at version {} of `{}` cannot be read: a newer program wrote it; \
             use that one",
            event.event_type, event.version, event.stream
        ),
    )
}

/// What an operator decides, under the event type that says so.
pub(super) trait Decision: Serialize {
    const TYPE: &'static str;
}

impl Decision for Skip {
    const TYPE: &'static str = SKIPPED;
}

impl Decision for RowSkip {
    const TYPE: &'static str = ROW_SKIPPED;
}

impl Decision for MessageSkip {
    const TYPE: &'static str = MESSAGE_SKIPPED;
}

impl Decision for TableResync {
    const TYPE: &'static str = TABLE_RESYNC;
}

pub(super) async fn decide<D: Decision>(
    store: &dyn Store,
    name: &str,
    decision: &D,
) -> Result<(), StoreError> {
    let payload = serde_json::to_vec(decision).map_err(|error| Invalid::new(error.to_string()))?;
    append(store, name, NewEvent::json(D::TYPE, payload)).await
}

pub(super) async fn resync(store: &dyn Store, name: &str, reason: &str) -> Result<(), StoreError> {
    let payload = serde_json::json!({ "reason": reason }).to_string();
    append(store, name, NewEvent::json(RESYNC, payload)).await
}

/// The version of the newest decision.
pub(super) async fn newest(store: &dyn Store, name: &str) -> Result<Version, StoreError> {
    let read = ReadStream::of(stream(name)?).backward().limit(1);
    Ok(store.read_stream(read).await?.state.version)
}

async fn append(store: &dyn Store, name: &str, event: NewEvent) -> Result<(), StoreError> {
    let append = Append::new(stream(name)?, [event]);
    let appended = store.append(append).await;
    appended
        .map(drop)
        .map_err(annals_core::AppendError::into_store_error)
}

#[cfg(test)]
mod tests {
    use annals_core::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn a_change_is_skipped_until_all_tables_are_compared() {
        let store = MemoryStore::new();
        let skip = |ordinal| Skip {
            commit: Lsn::new(7),
            ordinal,
            reason: "no number".into(),
        };
        let at = |ordinal| At {
            lsn: Lsn::new(7),
            ordinal,
            ..At::default()
        };
        decide(&store, "shop", &skip(3)).await.unwrap();
        assert!(decisions(&store, "shop").await.unwrap().skips(at(3)));
        resync(&store, "shop", "another server").await.unwrap();
        decide(&store, "shop", &skip(4)).await.unwrap();
        let found = decisions(&store, "shop").await.unwrap();
        assert!(!found.skips(at(3)), "{found:?}");
        assert!(found.skips(at(4)), "{found:?}");
    }
}
