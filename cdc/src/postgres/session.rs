//! One session with the server: checked, then a snapshot when there is none yet, then the stream.

mod again;
mod copying;
mod keys;
mod parts;
mod tables;
mod warnings;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Settings;
use super::address::Address;
use super::checks;
use super::control::{Control, primary_keys};
use super::errors::stop;
use super::heartbeat::{self, Heartbeat, MissedMax};
use super::pgwire::Pgwire;
use super::snapshot::Snapshot;
use super::transaction::{Arriving, logical_message};
use super::transport::{Frame, Transport};
use crate::ingest::{Chunk, Mark, Partial, Resume, Snapshotting, SourceError, SourceStatus};
use crate::lsn::Lsn;
use crate::pgoutput::{Decoder, Message};
use crate::record::Record;
use crate::schema::TableName;
pub(super) use again::BACKOFF as COPY_BACKOFF;
use again::CopyAgain;
use copying::make_publication;
use parts::Large;
use tables::Watched;
use warnings::slot_warning;

/// Records, and bytes of them, that go into one chunk.
const CHUNK_RECORDS: usize = 4_500;
const CHUNK_BYTES: usize = 4 << 20;

/// So many records are given while what was given before is appended.
const AHEAD_RECORDS: usize = 500;

/// Bytes of one part of a large transaction. Three of them are in memory, as messages, records and
/// events.
const PART_BYTES: usize = 512 << 10;

/// How often an idle position is noted at most, but for the first time.
const NOTE_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Session {
    settings: Settings,
    ingest: String,
    slot: String,
    publication: String,
    source: Arc<str>,
    address: Address,
    control: Control,
    transport: Box<dyn Transport>,
    decoder: Decoder,
    heartbeat: Heartbeat,
    phase: Phase,
    /// Whether the server was asked for the slot, and has not answered.
    is_making_slot: bool,
    /// What is known up to here.
    resume: Lsn,
    /// What was given up to here, which is not confirmed before it is known.
    given: Lsn,
    /// Of the transaction that is in by parts: what is known of it.
    known: Option<Partial>,
    arriving: Option<Arriving>,
    large: Option<Large>,
    ready: Ready,
    /// Where one could go on while nothing is to be taken.
    idle: Lsn,
    noted: Option<Instant>,
    /// Whether the server waits for what is idle to be confirmed.
    asked: bool,
    confirmed: Option<Instant>,
    /// Up to where the server had written when it was asked last.
    written: Lsn,
    status: SourceStatus,
    /// Whether the status is another than the one that was given.
    has_news: bool,
    warnings: Vec<String>,
    watched: Watched,
    again: CopyAgain,
}

#[derive(Debug)]
enum Phase {
    Begins(Vec<TableName>),
    MakesSlot(Vec<TableName>),
    /// The log is to know where the slot begins before anything is read under its snapshot.
    MadeSlot {
        tables: Vec<TableName>,
        snapshot: String,
        point: Lsn,
        time: DateTime<Utc>,
    },
    Reads {
        snapshot: Snapshot,
        point: Lsn,
        rows: u64,
        time: DateTime<Utc>,
    },
    Streams,
}

/// Whole transactions that are to be given.
#[derive(Debug, Default)]
struct Ready {
    records: Vec<Record>,
    transactions: u64,
    bytes: usize,
    end: Lsn,
    time: Option<DateTime<Utc>>,
}

impl Session {
    pub(super) async fn begin(
        settings: &Settings,
        ingest: &str,
        last: Option<&Mark>,
        wants_snapshot: bool,
        missed_max: MissedMax,
    ) -> Result<Session, SourceError> {
        let own = || format!("annals_{ingest}");
        let slot = settings.slot.clone().unwrap_or_else(own);
        checks::slot_name(&slot)?;
        let publication = settings.publication.clone().unwrap_or_else(own);
        let address = Address::parse(&settings.url)?;
        let mut control = Control::connect(&address.control).await?;
        let is_fresh = wants_snapshot || last.is_none_or(|last| last.snapshot.is_some());
        let resume = last.filter(|_| !is_fresh).map(checks::resume_of);
        let resume = resume.unwrap_or_default();
        let config = address.replication(settings, &slot, &publication, resume);
        let mut transport: Box<dyn Transport> = Box::new(Pgwire::connect(config).await?);
        let server = transport.identify().await?;
        checks::settings(transport.as_mut()).await?;
        let is_ours = settings.publication.is_none();
        if is_fresh && is_ours && control.publishes(&publication).await?.is_none() {
            make_publication(&mut control, &publication, &settings.tables).await?;
        }
        let database = control.database().await?;
        if let Some(last) = last.filter(|_| !is_fresh) {
            checks::server(settings, &server, last, &slot)?;
        }
        let (published, mut warnings) =
            checks::publication(&mut control, &publication, &settings.tables).await?;
        let named = control.named_tables(&publication).await?;
        let watched = Watched::of(&publication, &settings.tables, named);
        let keys = primary_keys(&published);
        let tables: Vec<_> = published.iter().map(|of| of.schema.table.clone()).collect();
        let status = SourceStatus {
            tables: tables.clone(),
            ..SourceStatus::default()
        };
        if is_fresh {
            if let Some(found) = control.slot(&slot).await? {
                let of = (&*slot, &*server.system);
                checks::may_drop(&found, of, &database, last, wants_snapshot)?;
                let drop = format!("select pg_drop_replication_slot('{slot}')");
                let doing = format!("cannot drop the slot `{slot}`");
                control.run(&doing, drop).await?;
            }
            if let Some(last) = last {
                warnings
                    .extend(checks::other_slot(&mut control, &slot, &server.system, last).await?);
            }
        } else {
            checks::slot(&mut control, &slot, &database, resume).await?;
            transport.start().await?;
        }
        Ok(Session {
            source: checks::source_name(&server, &slot).into(),
            phase: if is_fresh {
                Phase::Begins(tables)
            } else {
                Phase::Streams
            },
            is_making_slot: false,
            heartbeat: Heartbeat::every(settings.heartbeat, missed_max),
            decoder: Decoder::new(keys),
            known: last.filter(|_| !is_fresh).and_then(|last| last.partial),
            settings: settings.clone(),
            ingest: ingest.to_owned(),
            slot,
            publication,
            address,
            control,
            transport,
            resume,
            given: resume,
            arriving: None,
            large: None,
            ready: Ready::default(),
            idle: resume,
            noted: None,
            asked: false,
            confirmed: None,
            written: server.written,
            status,
            has_news: false,
            warnings,
            watched,
            again: CopyAgain::default(),
        })
    }

    /// What comes next. While what was given before is appended there is time to receive more.
    pub(super) async fn next(&mut self, answered: Option<&Notify>) -> Result<Chunk, SourceError> {
        match &mut self.phase {
            Phase::Begins(tables) => {
                let tables = std::mem::take(tables);
                // Rows of which no copy is made are not gone.
                let copied = match self.settings.snapshot {
                    true => tables.clone(),
                    false => Vec::new(),
                };
                self.phase = Phase::MakesSlot(tables);
                Ok(self.chunk(Snapshotting::Begins(copied)))
            }
            Phase::MakesSlot(tables) => {
                let tables = tables.clone();
                self.make_slot(tables).await
            }
            Phase::MadeSlot { .. } => self.begin_to_read().await,
            Phase::Reads { .. } => self.read().await,
            Phase::Streams => self.stream(answered).await,
        }
    }

    fn chunk(&self, snapshot: Snapshotting) -> Chunk {
        Chunk {
            source: Arc::clone(&self.source),
            snapshot: Some(snapshot),
            ..Chunk::default()
        }
    }

    async fn stream(&mut self, mut answered: Option<&Notify>) -> Result<Chunk, SourceError> {
        // Also while there is always something to take.
        if self.heartbeat.due().now_or_never().is_some() {
            if self.large.is_some() {
                // Nothing is received meanwhile, so that no heartbeat could come back.
                self.measure().await?;
            } else {
                self.beat().await?;
            }
        }
        if let Some(news) = self.news_of_copy().await? {
            return Ok(news);
        }
        loop {
            if self.ready.is_full() || !self.ready.records.is_empty() && self.large.is_some() {
                return Ok(self.give());
            }
            if self.large.is_some() {
                if let Some(chunk) = self.part().await? {
                    return Ok(chunk);
                }
                continue;
            }
            let frame = match self.transport.try_next() {
                Some(frame) => frame?,
                None if self.ready.is_enough(answered.is_some()) => return Ok(self.give()),
                None => {
                    if let Some(chunk) = self.note() {
                        return Ok(chunk);
                    }
                    if std::mem::take(&mut self.has_news) {
                        return Ok(Chunk::default());
                    }
                    let may_read = self.may_read_again();
                    tokio::select! {
                        biased;
                        frame = self.transport.next() => frame?,
                        () = notified(answered) => {
                            if self.ready.records.is_empty() {
                                return Ok(Chunk::default());
                            }
                            answered = None;
                            continue;
                        }
                        () = self.heartbeat.due() => {
                            self.beat().await?;
                            continue;
                        }
                        news = self.again.next(), if may_read => {
                            return self.read_again(news).await;
                        }
                    }
                }
            };
            self.take(frame).await?;
        }
    }

    async fn beat(&mut self) -> Result<(), SourceError> {
        // What was written before the heartbeat is read when that is back.
        self.measure().await?;
        self.heartbeat.send(&mut self.control, &self.ingest).await
    }

    /// Asks the server for what the slot keeps, and for the tables that are published.
    async fn measure(&mut self) -> Result<(), SourceError> {
        let asked = self.control.named_tables(&self.publication);
        let named = self.heartbeat.answer(asked).await?;
        self.watched.look(&named);
        let asked = self.control.slot_size(&self.slot);
        let size = self.heartbeat.answer(asked).await?;
        self.heartbeat
            .is_served(size.as_ref().and_then(|size| size.sender));
        if size.is_none() {
            self.status.lacks_slot();
            self.has_news = true;
        }
        if let Some(size) = size {
            let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
            self.status.slot = Some((self.slot.clone(), bytes(size.keeps_bytes)));
            self.status.safe_wal_bytes = size.safe_wal_bytes;
            self.status.spilled_bytes = Some(bytes(size.spilled_bytes));
            self.written = self.written.max(size.written);
            self.has_news = true;
        }
        Ok(())
    }

    async fn take(&mut self, frame: Frame) -> Result<(), SourceError> {
        // Whatever comes shows that the link is alive.
        self.heartbeat.came_back();
        match frame {
            Frame::Begin {
                final_lsn,
                time,
                xid,
            } => self.arriving = Some(Arriving::new(final_lsn, time, xid)),
            Frame::Data(bytes) => match &mut self.arriving {
                Some(arriving) => arriving.push(bytes, self.settings.spool_bytes)?,
                None => return Err(stop("a change outside of a transaction")),
            },
            Frame::Commit { lsn, end } => self.committed(lsn, end).await?,
            Frame::Logical {
                transactional,
                lsn,
                prefix,
                content,
            } => {
                if prefix == heartbeat::PREFIX {
                    if let Some(sent) = self.heartbeat.is_back(&content) {
                        self.status.heartbeat = Some(now());
                        self.status.known_to = self.status.known_to.max(Some(sent));
                        self.has_news = true;
                    }
                    self.is_idle(lsn);
                    return Ok(());
                }
                let bytes = logical_message(transactional, lsn, &prefix, &content);
                match &mut self.arriving {
                    _ if !transactional => self.message(lsn, &bytes).await?,
                    Some(arriving) => arriving.push(bytes.into(), self.settings.spool_bytes)?,
                    None => return Err(stop("a message outside of its transaction")),
                }
            }
            Frame::KeepAlive { at, asks } => {
                self.is_idle(at);
                // A server that shuts down waits until everything is confirmed.
                self.asked |= asks;
            }
        }
        Ok(())
    }

    /// A message outside of all transactions.
    async fn message(&mut self, lsn: Lsn, bytes: &[u8]) -> Result<(), SourceError> {
        // It ends at its LSN, and what was written next, such as a commit, begins there.
        let is_in_part = self.known.is_some_and(|known| lsn <= known.commit);
        let is_known = lsn <= self.resume || is_in_part;
        let record = self.decode(bytes).await?;
        if let Some(record) = record.filter(|_| !is_known) {
            self.ready.records.push(record);
            self.ready.bytes += bytes.len();
            self.ready.transactions += 1;
            self.ready.end = lsn;
        }
        Ok(())
    }

    /// A transaction is there in whole.
    async fn committed(&mut self, lsn: Lsn, end: Lsn) -> Result<(), SourceError> {
        let Some(arriving) = self.arriving.take() else {
            return Err(stop("a commit without a beginning"));
        };
        let begin = Message::Begin {
            final_lsn: arriving.final_lsn,
            time: arriving.time,
            xid: arriving.xid,
        };
        self.decoder
            .decode(begin)
            .map_err(|error| stop(error.to_string()))?;
        let time = arriving.time;
        let bytes = arriving.bytes();
        let is_large = arriving.is_large();
        let mut messages = arriving.messages()?;
        if is_large {
            self.large = Some(Large {
                messages,
                ahead: None,
                commit: lsn,
                end,
                time,
            });
            return Ok(());
        }
        let before = self.ready.records.len();
        while let Some(message) = messages.next()? {
            if let Some(record) = self.decode(&message).await?
                && self.is_new(lsn, end, &record)
            {
                self.ready.records.push(record);
            }
        }
        if self.ready.records.len() > before {
            self.ready.bytes += bytes;
            self.ready.transactions += 1;
            self.ready.end = end;
            self.ready.time = Some(time);
        } else {
            self.is_idle(end);
        }
        Ok(())
    }

    async fn decode(&mut self, bytes: &[u8]) -> Result<Option<Record>, SourceError> {
        let message = Message::parse(bytes).map_err(|error| stop(error.to_string()))?;
        if let Message::Relation(relation) = &message {
            self.look_for_key(relation).await?;
        }
        self.decoder
            .decode(message)
            .map_err(|error| stop(error.to_string()))
    }

    fn give(&mut self) -> Chunk {
        let ready = std::mem::take(&mut self.ready);
        self.idle = self.idle.max(ready.end);
        self.given = self.given.max(ready.end);
        self.status.known_to = self.status.known_to.max(ready.time);
        Chunk {
            source: Arc::clone(&self.source),
            records: ready.records,
            resume: Some(Resume::Lsn(ready.end)),
            transactions: ready.transactions,
            ..Chunk::default()
        }
    }

    /// The server has read up to here, and nothing is on its way.
    fn is_idle(&mut self, at: Lsn) {
        if self.arriving.is_none() && self.large.is_none() {
            self.idle = self.idle.max(at);
        }
    }

    /// Where one could go on, when it is worth a mark: what a quiet publication would keep, and
    /// what the server waits for.
    fn note(&mut self) -> Option<Chunk> {
        let idle = self.idle_at()?;
        let is_time = self.noted.is_none_or(|noted| noted.elapsed() >= NOTE_EVERY);
        let is_far = idle.bytes_since(self.resume.max(self.given)) >= self.settings.note_bytes;
        if !(std::mem::take(&mut self.asked) || is_time && is_far) {
            return None;
        }
        self.noted = Some(Instant::now());
        self.given = self.given.max(idle);
        Some(Chunk {
            source: Arc::clone(&self.source),
            resume: Some(Resume::Lsn(idle)),
            ..Chunk::default()
        })
    }

    pub(super) fn idle_at(&self) -> Option<Lsn> {
        let is_idle = matches!(self.phase, Phase::Streams)
            && self.arriving.is_none()
            && self.large.is_none()
            && self.ready.records.is_empty();
        // A mark before the commit of a transaction that is in by parts would forget what is in.
        let is_past = self.known.is_none_or(|known| self.idle > known.commit);
        (is_idle && is_past && self.idle > self.resume.max(self.given)).then_some(self.idle)
    }

    /// How many heartbeats the next session may miss.
    pub(super) fn next_missed_max(&self) -> MissedMax {
        self.heartbeat.next_missed_max()
    }

    pub(super) fn confirm(&mut self, up_to: &Mark) {
        if up_to.snapshot.is_none() {
            self.heartbeat.has_brought();
        }
        if up_to.partial.is_some() || up_to.snapshot.is_some() {
            return;
        }
        if let Some(Resume::Lsn(lsn)) = up_to.resume {
            self.resume = self.resume.max(lsn);
            self.known = self.known.filter(|known| known.commit >= lsn);
            self.transport.confirm(lsn);
            self.confirmed = Some(Instant::now());
        }
    }

    pub(super) async fn end(mut self) {
        // What was confirmed last is sent within one interval, and dropped by an end before that.
        if let Some(confirmed) = self.confirmed {
            let sent = self.settings.status_interval + Duration::from_millis(100);
            tokio::time::sleep(sent.saturating_sub(confirmed.elapsed())).await;
        }
        if self.is_making_slot {
            self.gives_up_slot().await;
        }
        if matches!(self.phase, Phase::Streams) {
            self.transport.end().await;
        }
    }

    pub(super) fn status(&self) -> SourceStatus {
        let mut status = self.status.clone();
        if status.slot.is_some() {
            let read = match &self.phase {
                Phase::Reads { point, .. } => *point,
                _ => self.idle.max(self.resume),
            };
            status.lag_bytes = Some(self.written.bytes_since(read));
        }
        status.waits_since = self.heartbeat.waits_since();
        status.warnings = self.warnings.clone();
        status.warnings.extend(self.watched.warnings());
        status.warnings.extend(self.heartbeat.warning());
        status.warnings.extend(self.again.warning());
        status.warnings.extend(slot_warning(&self.phase, &status));
        status
    }
}

/// Returns when it is notified; never without something that is.
async fn notified(answered: Option<&Notify>) {
    match answered {
        Some(answered) => answered.notified().await,
        None => std::future::pending().await,
    }
}

impl Ready {
    /// Whether it is worth a chunk when nothing more is there.
    fn is_enough(&self, is_ahead: bool) -> bool {
        let least = if is_ahead { AHEAD_RECORDS } else { 1 };
        self.records.len() >= least
    }

    fn is_full(&self) -> bool {
        self.records.len() >= CHUNK_RECORDS || self.bytes >= CHUNK_BYTES
    }
}

fn now() -> DateTime<Utc> {
    annals_core::Clock::now(&annals_core::SystemClock)
}
