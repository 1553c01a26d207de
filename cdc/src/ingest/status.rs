//! What operators see of an ingest.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::lsn::Lsn;
use crate::schema::TableName;

/// What an ingest does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum IngestState {
    /// It waits for its lease, or connects.
    #[default]
    Starting,
    /// It copies what the tables hold.
    Snapshot,
    /// It follows the source.
    Following,
    /// It tries again, for this reason.
    Retrying(String),
    /// It needs an operator, for this reason.
    Stopped(String),
    /// Its program ends.
    Ended,
}

/// What a source says of itself.
///
/// ```
/// assert_eq!(annals_cdc::SourceStatus::default().lag_bytes, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SourceStatus {
    /// Bytes of its log that were not taken yet.
    pub lag_bytes: Option<u64>,
    /// Everything that was committed there until then is taken: the time of the newest transaction,
    /// or of the newest heartbeat that came back.
    pub known_to: Option<DateTime<Utc>>,
    /// The slot, and how many bytes of log it keeps on the server.
    pub slot: Option<(String, u64)>,
    /// Bytes until the server gives the slot up, where it has a limit.
    pub safe_wal_bytes: Option<i64>,
    /// Bytes of large transactions that the server wrote to its disk for this slot.
    pub spilled_bytes: Option<u64>,
    /// Rows of a snapshot that were read.
    pub snapshot_rows: Option<u64>,
    /// How many there are, as far as the server has counted them.
    pub snapshot_rows_about: Option<u64>,
    /// The tables that it takes in, where it knows them.
    pub tables: Vec<TableName>,
    /// When the oldest heartbeat was sent that has not come back.
    pub waits_since: Option<DateTime<Utc>>,
    /// When a heartbeat came back last.
    pub heartbeat: Option<DateTime<Utc>>,
    /// What operators should know.
    pub warnings: Vec<String>,
}

/// How an ingest is. Prints as one line.
///
/// ```
/// let status = annals_cdc::IngestStatus::named("shop");
/// assert_eq!(status.to_string(), "ingest shop: starting");
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct IngestStatus {
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: IngestState,
    /// Where it would go on.
    pub at: Option<Lsn>,
    /// Transactions that it took in since the program started.
    pub transactions: u64,
    /// Events that it appended since the program started.
    pub events: u64,
    /// Changes that operators skipped, of those that it met.
    pub skipped: u64,
    /// Seconds from the commit of the newest transaction, or the sending of the newest heartbeat,
    /// until it was taken in; since then, while it does not follow.
    pub lag_seconds: Option<f64>,
    /// What the source says of itself.
    pub source: SourceStatus,
}

impl IngestStatus {
    /// Of an ingest that begins.
    pub fn named(name: &str) -> IngestStatus {
        IngestStatus {
            name: name.to_owned(),
            ..IngestStatus::default()
        }
    }
}

impl IngestStatus {
    /// While nothing is taken in, what waits gets older.
    pub(super) fn aged(&mut self, now: DateTime<Utc>) {
        let waits = matches!(
            self.state,
            IngestState::Retrying(_) | IngestState::Stopped(_)
        );
        let since = match waits {
            true => self.source.known_to,
            false => self.source.waits_since,
        };
        if let Some(since) = since {
            let lag = (now - since).as_seconds_f64();
            self.lag_seconds = Some(self.lag_seconds.unwrap_or_default().max(lag));
        }
    }
}

impl fmt::Display for IngestStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ingest {}: ", self.name)?;
        match &self.state {
            IngestState::Starting => f.write_str("starting")?,
            IngestState::Snapshot => f.write_str("snapshot")?,
            IngestState::Following => f.write_str("following")?,
            IngestState::Retrying(why) => write!(f, "retrying: {why}")?,
            IngestState::Stopped(why) => write!(f, "stopped: {why}")?,
            IngestState::Ended => f.write_str("ended")?,
        }
        if let Some(at) = self.at {
            write!(f, " · at {at}")?;
        }
        match (self.source.lag_bytes, self.lag_seconds) {
            (Some(bytes), Some(seconds)) => write!(f, ", lags {bytes} bytes and {seconds:.1} s")?,
            (Some(bytes), None) => write!(f, ", lags {bytes} bytes")?,
            (None, Some(seconds)) => write!(f, ", lags {seconds:.1} s")?,
            (None, None) => {}
        }
        if let Some((slot, bytes)) = &self.source.slot {
            write!(f, " · slot {slot} keeps {:.1} MB", *bytes as f64 / 1e6)?;
        }
        if let Some(rows) = self.source.snapshot_rows {
            write!(f, " · snapshot {rows}")?;
            if let Some(of) = self.source.snapshot_rows_about {
                write!(f, " of about {of}")?;
            }
            f.write_str(" rows")?;
        }
        if self.skipped > 0 {
            write!(f, " · {} skipped", self.skipped)?;
        }
        for warning in &self.source.warnings {
            write!(f, " · {warning}")?;
        }
        Ok(())
    }
}
