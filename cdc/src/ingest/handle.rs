//! What programs and operators do with a running ingest.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::{Annals, Clock, Failure, StoreError};
use annals_runner::{GenerationWorkers, Program, SlotState};
use chrono::{DateTime, Utc};

use super::Ingest;
use super::operator::{self, MessageSkip, RowSkip, Skip, TableResync};
use super::status::{IngestState, IngestStatus, Skipped, SourceStatus};
use crate::lsn::Lsn;
use crate::schema::TableName;

/// A running ingest: how it is, and what operators decide about it. Cheap to clone.
///
/// ```
/// # async fn example(shop: annals_cdc::IngestHandle) -> Result<(), Box<dyn std::error::Error>> {
/// println!("{}", shop.status());
/// shop.skip("0/15287A0".parse()?, 3, "bad encoding, ticket 812").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct IngestHandle {
    pub(super) db: Annals,
    pub(super) name: &'static str,
    pub(super) shared: Arc<Shared>,
    pub(super) workers: GenerationWorkers,
    pub(super) can_resync: bool,
    pub(super) has_messages: bool,
    pub(super) tables: Vec<TableName>,
}

/// What the work and its handle share.
pub(super) struct Shared {
    pub(super) status: Mutex<IngestStatus>,
    /// What was met that operators skipped: a retry meets it again.
    met: Mutex<HashSet<Skipped>>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Shared {
    pub(super) fn new(name: &str, clock: Arc<dyn Clock>) -> Shared {
        Shared {
            status: Mutex::new(IngestStatus::named(name)),
            met: Mutex::default(),
            clock,
        }
    }

    pub(super) fn state(&self) -> IngestState {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.state.clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut IngestStatus)) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let had_slot = status.source.slot.is_some();
        change(&mut status);
        status.aged(self.clock.now());
        super::metrics::report(&status, had_slot);
    }

    /// What the source says of itself. What it knows is only counted as taken in when nothing is on
    /// its way into the log.
    pub(super) fn says(&self, source: SourceStatus, is_settled: bool) {
        let known_to = source.known_to.filter(|_| is_settled);
        let now = self.clock.now();
        self.change(|status| {
            status.is_known_to(known_to, now);
            let known_to = status.source.known_to;
            status.source = SourceStatus { known_to, ..source };
        });
    }

    /// Everything that was committed until then is in the log.
    pub(super) fn known_to(&self, known_to: Option<DateTime<Utc>>) {
        let now = self.clock.now();
        self.change(|status| status.is_known_to(known_to, now));
    }

    /// Something was met that operators skipped.
    pub(super) fn skipped(&self, skipped: Option<Skipped>) {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        if skipped.is_some_and(|skipped| met.insert(skipped)) {
            let count = met.len() as u64;
            drop(met);
            self.change(|status| status.skipped = count);
        }
    }
}

/// Finds the ingests of a program by their names.
///
/// ```no_run
/// use annals_cdc::Ingests as _;
///
/// # fn example(db: annals_runner::Program) {
/// if let Some(shop) = db.ingest("shop") {
///     println!("{}", shop.status());
/// }
/// # }
/// ```
pub trait Ingests {
    /// The ingest of this name, if the program has it.
    fn ingest(&self, name: &str) -> Option<IngestHandle>;
}

impl Ingests for Program {
    fn ingest(&self, name: &str) -> Option<IngestHandle> {
        let mut handles = self.handles::<Ingest, IngestHandle>();
        handles.find(|handle| handle.name == name)
    }
}

impl IngestHandle {
    /// How it is.
    pub fn status(&self) -> IngestStatus {
        let status = self.shared.status.lock();
        let mut status = status.unwrap_or_else(PoisonError::into_inner).clone();
        let now = self.shared.clock.now();
        if let Some((owner, until)) = self.held_elsewhere(now) {
            return IngestStatus {
                state: IngestState::Elsewhere { owner, until },
                skipped: status.skipped,
                transactions: status.transactions,
                events: status.events,
                ..IngestStatus::named(self.name)
            };
        }
        status.aged(now);
        status
    }

    /// The owner of its lease, when that is another process or program, and until when it is.
    fn held_elsewhere(&self, now: DateTime<Utc>) -> Option<(String, DateTime<Utc>)> {
        let generations = self.workers.status(now).into_iter();
        let mut slots = generations.flat_map(|of| of.slots);
        slots.find_map(|of| match of.state {
            SlotState::Elsewhere { owner, until } => Some((owner, until)),
            _ => None,
        })
    }

    /// One change is not taken in: the record `ordinal` of the transaction that was committed at
    /// `commit`. An event in the log says so, with the reason. It holds until the next
    /// [`resync_all`](IngestHandle::resync_all): another server may use the LSN again.
    ///
    /// # Errors
    ///
    /// When the log cannot take it, and for a source of messages, of which one is skipped with
    /// [`skip_message`](IngestHandle::skip_message).
    pub async fn skip(&self, commit: Lsn, ordinal: u64, reason: &str) -> Result<(), StoreError> {
        if self.has_messages {
            return Err(StoreError::new(
                Failure::Invalid,
                format!(
                    "the source of ingest `{}` has messages: skip one with \
                     `skip_message(partition, position, reason)`",
                    self.name
                ),
            ));
        }
        let skip = Skip {
            commit,
            ordinal,
            reason: reason.to_owned(),
        };
        operator::decide(self.db.store().as_ref(), self.name, &skip).await?;
        self.workers.decided();
        Ok(())
    }

    /// One row of a table is not read: not by a snapshot nor by a resync, until the next
    /// [`resync`](IngestHandle::resync) of its table or
    /// [`resync_all`](IngestHandle::resync_all). What the log has of it stays, and what changes it
    /// later is taken in. The table is named as in [`Postgres::tables`](crate::Postgres::tables),
    /// and the row by all columns of its key. An event in the log says so, with the reason.
    ///
    /// ```
    /// # async fn example(shop: annals_cdc::IngestHandle) -> Result<(), annals_core::StoreError> {
    /// shop.skip_row("public.orders", &[("id", "42")], "bad encoding, ticket 812").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When the log cannot take it, and without a key.
    pub async fn skip_row(
        &self,
        table: &str,
        key: &[(&str, &str)],
        reason: &str,
    ) -> Result<(), StoreError> {
        if key.is_empty() {
            let what = "a row is named by the columns of its key";
            return Err(StoreError::new(Failure::Invalid, what));
        }
        let columns = key.iter();
        let skip = RowSkip {
            table: TableName::parse(table),
            key: columns
                .map(|(name, value)| ((*name).into(), Some((*value).to_owned())))
                .collect(),
            reason: reason.to_owned(),
        };
        operator::decide(self.db.store().as_ref(), self.name, &skip).await?;
        self.workers.decided();
        Ok(())
    }

    /// One message of a file or a topic is not taken in, of a source such as
    /// [`Debezium`](crate::debezium::Debezium): the one at this position of its partition, as the
    /// text of the error says. An event in the log says so, with the reason.
    ///
    /// # Errors
    ///
    /// When the log cannot take it.
    pub async fn skip_message(
        &self,
        partition: u32,
        position: u64,
        reason: &str,
    ) -> Result<(), StoreError> {
        let skip = MessageSkip {
            partition,
            position,
            reason: reason.to_owned(),
        };
        operator::decide(self.db.store().as_ref(), self.name, &skip).await?;
        self.workers.decided();
        Ok(())
    }

    /// All tables are compared with the log: a new slot, a new snapshot, and rows that are gone are
    /// deleted. What happened in between is not in the history, and an event `cdc.gap` in the
    /// stream `$cdc_gap-NAME` says between which LSNs of the source.
    ///
    /// # Errors
    ///
    /// When the log cannot take it, and for a source that has no tables to read.
    pub async fn resync_all(&self, reason: &str) -> Result<(), StoreError> {
        self.is_able_to_resync()?;
        operator::resync(self.db.store().as_ref(), self.name, reason).await?;
        self.workers.decided();
        Ok(())
    }

    /// One table is read again and compared with the log, while the stream goes on: rows that
    /// differ or lack are `read`, rows that are gone are `deleted`. A process that ends in the
    /// middle of it begins it again. A table is named as in
    /// [`Postgres::tables`](crate::Postgres::tables).
    ///
    /// # Errors
    ///
    /// When the log cannot take it, for a table that is not taken in, and for a source that has no
    /// tables to read.
    pub async fn resync(&self, table: &str, reason: &str) -> Result<(), StoreError> {
        self.is_able_to_resync()?;
        let table = TableName::parse(table);
        let mut known = self.status().source.tables;
        if known.is_empty() {
            // Another process takes in: what this one was told holds for both.
            known.clone_from(&self.tables);
        }
        if !known.is_empty() && !known.contains(&table) {
            let known: Vec<_> = known.iter().map(ToString::to_string).collect();
            return Err(StoreError::new(
                Failure::Invalid,
                format!(
                    "ingest `{}` does not take in table `{table}`: it has {}",
                    self.name,
                    known.join(", ")
                ),
            ));
        }
        let request = TableResync {
            table,
            reason: reason.to_owned(),
        };
        operator::decide(self.db.store().as_ref(), self.name, &request).await?;
        self.workers.decided();
        Ok(())
    }

    fn is_able_to_resync(&self) -> Result<(), StoreError> {
        if self.can_resync {
            return Ok(());
        }
        Err(StoreError::new(
            Failure::Invalid,
            format!(
                "the source of ingest `{}` has no tables to read: it only says what changes",
                self.name
            ),
        ))
    }
}

impl std::fmt::Debug for IngestHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IngestHandle")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
