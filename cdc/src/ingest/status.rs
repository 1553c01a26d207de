//! What operators see of an ingest.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::lsn::Lsn;

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
    /// The commit time of the newest transaction that was taken.
    pub newest: Option<DateTime<Utc>>,
    /// The slot, and how many bytes of log it keeps on the server.
    pub slot: Option<(String, u64)>,
    /// Bytes until the server gives the slot up, where it has a limit.
    pub safe_wal_bytes: Option<i64>,
    /// Bytes of large transactions that the server wrote to its disk for this slot.
    pub spilled_bytes: Option<u64>,
    /// Rows of a snapshot that were read.
    pub snapshot_rows: Option<u64>,
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
    /// Seconds from the commit of the newest transaction until it was taken in.
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
        if let Some(bytes) = self.source.lag_bytes {
            write!(f, ", lags {bytes} bytes")?;
            if let Some(seconds) = self.lag_seconds {
                write!(f, " and {seconds:.1} s")?;
            }
        }
        if let Some((slot, bytes)) = &self.source.slot {
            write!(f, " · slot {slot} keeps {:.1} MB", *bytes as f64 / 1e6)?;
        }
        if let Some(rows) = self.source.snapshot_rows {
            write!(f, " · snapshot {rows} rows")?;
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
