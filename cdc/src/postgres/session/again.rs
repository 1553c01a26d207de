//! Tables that are read again beside the stream: under the snapshot of a slot that lives only for
//! it, and given once the stream has passed the LSN of the snapshot.

use std::time::Duration;

use annals_core::Backoff;
use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::address::Address;
use super::super::control::{Control, Published};
use super::super::errors::retry;
use super::super::pgwire::Pgwire;
use super::super::snapshot::Snapshot;
use super::super::transport::{Lives, Transport};
use super::copying::records_of;
use super::{Phase, Session, Settings, now};
use crate::ingest::{Chunk, ReadAgain, SourceError, SourceFailure};
use crate::lsn::Lsn;
use crate::record::RowRecord;
use crate::schema::TableName;

/// Waits after copies that failed, doubled each time.
pub(in super::super) const BACKOFF: Backoff =
    Backoff::new(Duration::from_secs(1), Duration::from_secs(600));

/// What is read again, and how far it is.
#[derive(Debug)]
pub(super) struct CopyAgain {
    state: State,
    tables: Vec<TableName>,
    /// Whether the stream has its turn.
    waits: bool,
    warning: Option<String>,
    backoff: Backoff,
    /// Whether the ingest compares with the point of a copy. Then another copy takes a new start.
    is_compared: bool,
}

impl Default for CopyAgain {
    fn default() -> CopyAgain {
        CopyAgain {
            state: State::Nothing,
            tables: Vec::new(),
            waits: false,
            warning: None,
            backoff: BACKOFF,
            is_compared: false,
        }
    }
}

#[derive(Debug)]
enum State {
    Nothing,
    MakesSlot(JoinSet<Result<SlotMade, SourceError>>),
    /// It failed, and is tried again then.
    Waits(Instant),
    Reads(Reading),
}

#[derive(Debug)]
struct Reading {
    snapshot: Snapshot,
    point: Lsn,
    rows: u64,
    time: DateTime<Utc>,
    // Its snapshot is there as long as it is.
    _slot: Box<dyn Transport>,
}

/// A slot, and what is read under its snapshot.
#[derive(Debug)]
pub(super) struct SlotMade {
    slot: Box<dyn Transport>,
    point: Lsn,
    snapshot: Snapshot,
    published: Vec<Published>,
}

#[derive(Debug)]
pub(super) enum CopyNews {
    Made(SlotMade),
    Rows(Vec<RowRecord>),
    Complete,
    /// The wait is over.
    TryAgain,
}

impl CopyAgain {
    /// What comes next of it; never, when nothing is read.
    pub(super) async fn next(&mut self) -> Result<CopyNews, SourceError> {
        match &mut self.state {
            State::Nothing => std::future::pending().await,
            State::MakesSlot(making) => match making.join_next().await {
                Some(Ok(made)) => made.map(CopyNews::Made),
                _ => Err(retry("no slot was made to read tables again")),
            },
            State::Reads(reading) => {
                let rows = reading.snapshot.next().await?;
                Ok(rows.map_or(CopyNews::Complete, CopyNews::Rows))
            }
            State::Waits(until) => {
                tokio::time::sleep_until(*until).await;
                Ok(CopyNews::TryAgain)
            }
        }
    }

    /// What operators should know.
    pub(super) fn warning(&self) -> Option<String> {
        let waits = matches!(self.state, State::MakesSlot(_)).then(|| {
            format!(
                "{} read again after every transaction that is open and has written",
                names(&self.tables)
            )
        });
        waits.or_else(|| self.warning.clone())
    }

    /// The stream goes on meanwhile.
    fn fails(&mut self, error: &SourceError) {
        let error = annals_core::with_causes(error);
        let why = format!(
            "{} not read again yet, and is tried again: {error}",
            names(&self.tables)
        );
        tracing::warn!(why, "tables are not read again");
        self.state = State::Waits(Instant::now() + self.backoff.next_wait());
        self.warning = Some(why);
    }

    fn gives_up(&mut self, why: String) {
        tracing::error!(why, "tables are not read again");
        self.state = State::Nothing;
        self.warning = Some(why);
    }
}

/// `table public.orders is`, `tables public.orders, public.products are`.
fn names(tables: &[TableName]) -> String {
    let names: Vec<_> = tables.iter().map(|table| format!("`{table}`")).collect();
    match tables.len() {
        1 => format!("table {} is", names.join(", ")),
        _ => format!("tables {} are", names.join(", ")),
    }
}

/// Makes a slot that ends with its session, however long it takes, and begins to read those of the
/// tables that the publication has and that have a key.
async fn make(
    address: Address,
    settings: Settings,
    slot: String,
    publication: String,
    tables: Vec<TableName>,
) -> Result<SlotMade, SourceError> {
    // No two sessions name theirs alike, and an old one may not be gone yet.
    let unique = annals_core::EventId::random().to_string().replace('-', "");
    let own = slot.get(..slot.len().min(40)).unwrap_or_default();
    let name = format!("{own}_{}", unique.get(16..).unwrap_or_default());
    let config = address.replication(&settings, &name, &publication, Lsn::default());
    let mut transport = Box::new(Pgwire::connect(config).await?);
    let (point, snapshot) = transport.create_slot(&name, Lives::WithSession).await?;
    let mut published = {
        let mut control = Control::connect(&address.control).await?;
        control.published(&publication).await?
    };
    let is_wanted =
        |of: &Published| tables.contains(&of.schema.table) && !of.schema.key().is_empty();
    published.retain(is_wanted);
    if let Some(held) = &settings.hold_snapshot {
        held.notified().await;
    }
    let readers = settings.readers;
    let snapshot = Snapshot::read(&address.control, &snapshot, &published, readers).await?;
    Ok(SlotMade {
        slot: transport,
        point,
        snapshot,
        published,
    })
}

impl Session {
    /// These tables are to be read again, unless all are, after tries that failed so far.
    pub(in super::super) fn reading_again(
        mut self,
        tables: &[TableName],
        backoff: Backoff,
    ) -> Session {
        if tables.is_empty() || !matches!(self.phase, Phase::Streams) {
            return self;
        }
        self.again.tables = tables.to_vec();
        self.again.backoff = backoff;
        self.makes_slot_again();
        self
    }

    fn makes_slot_again(&mut self) {
        let mut making = JoinSet::new();
        making.spawn(make(
            self.address.clone(),
            self.settings.clone(),
            self.slot.clone(),
            self.publication.clone(),
            self.again.tables.clone(),
        ));
        self.again.state = State::MakesSlot(making);
    }

    /// The waits after tries that failed, for the next session.
    pub(in super::super) fn copy_backoff(&self) -> Backoff {
        self.again.backoff
    }

    /// The stream goes on without it; it is tried again at the next start.
    pub(in super::super) fn stops_reading_again(&mut self, why: &str) {
        let tables = names(&self.again.tables);
        self.status.snapshot_rows = None;
        self.status.snapshot_rows_about = None;
        self.again
            .gives_up(format!("{tables} not read again: {why}"));
    }

    /// Whether rows of the copy may be given: what was committed before it is, and nothing is in
    /// between.
    pub(super) fn may_read_again(&self) -> bool {
        match &self.again.state {
            State::Nothing => false,
            State::MakesSlot(_) | State::Waits(_) => true,
            State::Reads(reading) => {
                let arriving = self.arriving.as_ref().map(|of| of.final_lsn);
                self.large.is_none()
                    && self.ready.records.is_empty()
                    && self.idle.max(arriving.unwrap_or_default()) >= reading.point
            }
        }
    }

    /// In turns with the stream, which may always have something.
    pub(super) async fn news_of_copy(&mut self) -> Result<Option<Chunk>, SourceError> {
        if std::mem::take(&mut self.again.waits) || !self.may_read_again() {
            return Ok(None);
        }
        match self.again.next().now_or_never() {
            Some(news) => self.read_again(news).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn read_again(
        &mut self,
        news: Result<CopyNews, SourceError>,
    ) -> Result<Chunk, SourceError> {
        self.again.waits = true;
        let news = match news {
            Ok(news) => news,
            Err(error) if error.failure() == SourceFailure::Stop => {
                self.stops_reading_again(&annals_core::with_causes(&error).to_string());
                return Ok(Chunk::default());
            }
            Err(error) => {
                self.status.snapshot_rows = None;
                self.status.snapshot_rows_about = None;
                self.again.fails(&error);
                return Ok(Chunk::default());
            }
        };
        let mut chunk = Chunk {
            source: std::sync::Arc::clone(&self.source),
            ..Chunk::default()
        };
        match (news, &mut self.again.state) {
            (CopyNews::Made(made), _) => return self.copy_again(made).await,
            (CopyNews::TryAgain, _) if self.again.is_compared => {
                let why = self.again.warning.clone();
                return Err(retry(why.unwrap_or_default()));
            }
            (CopyNews::TryAgain, _) => {
                self.makes_slot_again();
                return Ok(Chunk::default());
            }
            (CopyNews::Rows(rows), State::Reads(reading)) => {
                let first = reading.rows;
                reading.rows += rows.len() as u64;
                self.status.snapshot_rows = Some(reading.rows);
                chunk.records = records_of(rows, "again", reading.point, first, reading.time);
                chunk.again = Some(ReadAgain::Rows);
            }
            (_, state) => {
                *state = State::Nothing;
                self.again.backoff.reset();
                self.status.snapshot_rows = None;
                self.status.snapshot_rows_about = None;
                chunk.again = Some(ReadAgain::Complete);
            }
        }
        Ok(chunk)
    }

    /// The slot is there: its snapshot is read.
    async fn copy_again(&mut self, made: SlotMade) -> Result<Chunk, SourceError> {
        self.again.warning = None;
        let published = &made.published;
        let found: Vec<_> = published.iter().map(|of| of.schema.table.clone()).collect();
        let lacks = |table: &&TableName| !found.contains(table);
        let lacking: Vec<_> = self.again.tables.iter().filter(lacks).cloned().collect();
        if !lacking.is_empty() {
            let publication = &self.publication;
            let why = format!(
                "{} not read again: publication `{publication}` does not have it, or it has no key",
                names(&lacking)
            );
            self.again.gives_up(why);
        }
        if found.is_empty() {
            return Ok(Chunk::default());
        }
        let about = published.iter().map(|of| of.rows_about).sum();
        self.status.snapshot_rows_about = Some(about).filter(|about| *about > 0);
        self.again.is_compared = true;
        self.again.state = State::Reads(Reading {
            snapshot: made.snapshot,
            point: made.point,
            rows: 0,
            time: now(),
            _slot: made.slot,
        });
        // A quiet stream passes the LSN of the snapshot with it.
        self.beat().await?;
        Ok(Chunk {
            source: std::sync::Arc::clone(&self.source),
            again: Some(ReadAgain::Begins(made.point, found)),
            ..Chunk::default()
        })
    }
}
