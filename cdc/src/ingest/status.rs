//! What operators see of an ingest.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::columns::Columns;
use crate::lsn::Lsn;
use crate::record::{Body, Record};
use crate::schema::TableName;

/// What an ingest does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum IngestState {
    /// It connects, or has not asked for its lease.
    #[default]
    Starting,
    /// Another process takes in, or another program of this one: it waits for the lease.
    Elsewhere {
        /// The owner of the lease.
        owner: String,
        /// When that lease ends, unless it is renewed; by the clock of the store that keeps it.
        until: DateTime<Utc>,
    },
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

/// Something that operators skipped, as they name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Skipped {
    Record(Lsn, u64),
    Row(TableName, Columns),
}

impl Skipped {
    pub(super) fn of_record(record: &Record) -> Option<Skipped> {
        Some(Skipped::Record(record.at.lsn, record.at.ordinal))
    }

    /// As a row of a copy, which each copy has under another LSN.
    pub(super) fn of_row(record: &Record) -> Option<Skipped> {
        match &record.body {
            Body::Row(row) => Some(Skipped::Row(row.table.clone(), row.key.clone())),
            _ => None,
        }
    }
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
    /// The moment that a snapshot shows, while it is read.
    pub snapshot_of: Option<DateTime<Utc>>,
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

impl SourceStatus {
    /// The slot is gone, or nothing is known of it: it keeps nothing.
    pub(crate) fn lacks_slot(&mut self) {
        self.slot = None;
        self.safe_wal_bytes = None;
        self.spilled_bytes = None;
        self.lag_bytes = None;
    }
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
    /// Changes and rows that operators skipped, of those that it met since the program started:
    /// each once, however often it is met.
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
    /// Everything that was committed until then is in. What is known already tells nothing new.
    pub(super) fn is_known_to(&mut self, known_to: Option<DateTime<Utc>>, now: DateTime<Utc>) {
        if known_to > self.source.known_to {
            let lag = known_to.map(|known| now - known);
            self.lag_seconds = lag.map(|lag| lag.as_seconds_f64().max(0.0));
            self.source.known_to = known_to;
        }
    }

    /// While nothing is taken in, what waits gets older.
    pub(super) fn aged(&mut self, now: DateTime<Utc>) {
        let since = match self.state {
            IngestState::Retrying(_) | IngestState::Stopped(_) => self.source.known_to,
            // What happens meanwhile comes after it.
            IngestState::Snapshot => self.source.known_to.or(self.source.snapshot_of),
            _ => self.source.waits_since,
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
            IngestState::Elsewhere { owner, until } => {
                let until = until.format("%Y-%m-%dT%H:%M:%S%.3fZ");
                write!(
                    f,
                    "waits for its lease, which is held by {owner} until {until}"
                )?;
            }
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

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn the_lag_grows_while_tables_are_copied() {
        let start = DateTime::UNIX_EPOCH;
        let after = |seconds| start + TimeDelta::seconds(seconds);
        let mut status = IngestStatus::named("shop");
        status.state = IngestState::Snapshot;
        status.aged(after(5));
        assert_eq!(
            status.lag_seconds, None,
            "nothing is known of the first copy"
        );
        status.source.snapshot_of = Some(start);
        status.aged(after(7));
        assert_eq!(status.lag_seconds, Some(7.0));
        // A later copy comes after what was known before it.
        status.is_known_to(Some(after(8)), after(9));
        assert_eq!(status.lag_seconds, Some(1.0));
        status.source.snapshot_of = Some(after(10));
        status.aged(after(20));
        assert_eq!(status.lag_seconds, Some(12.0));
        // Then it follows.
        status.state = IngestState::Following;
        status.is_known_to(Some(after(20)), after(21));
        status.aged(after(22));
        assert_eq!(status.lag_seconds, Some(1.0));
    }

    #[test]
    fn a_slot_that_is_gone_keeps_nothing() {
        let mut status = IngestStatus::named("shop");
        status.source.slot = Some(("annals_shop".into(), 2_000_000));
        assert!(status.to_string().contains("slot annals_shop keeps 2.0 MB"));
        status.source.lacks_slot();
        assert_eq!(status.to_string(), "ingest shop: starting");
    }
}
