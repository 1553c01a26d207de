//! From a file to the log: one command a row, several accounts at once, the rows of an account in
//! their order.
//!
//! A reader deals the rows to lanes, all rows of an account to the same one; every lane runs one
//! command after the other. The store commits what many lanes hand in at the same time together,
//! which is what makes single durable commands fast. Queues are bounded: when the lanes are busy,
//! the reader waits.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use annals::CommandError;
use annals::prelude::*;
use annals::store::AppendError;
use indicatif::ProgressBar;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::account::{Account, AccountError};
use crate::transaction::{self, BadRow, HEADER, Transaction};

/// How many commands are under way at once: the more, the more rows share a commit, and with it a
/// wait for the disk.
const LANES: u64 = 1024;
/// How many rows may wait in a lane; all lanes together, what the import needs of memory.
const LANE_ROWS: usize = 16;
/// How often a row is recorded again while another process takes its account over, and after which
/// pause; the store waits for some seconds each time.
const MOVES_MAX: u32 = 20;
const MOVES: Duration = Duration::from_secs(1);
/// How many bad rows are kept to be listed; all are counted.
const FAULTS_LISTED: usize = 20;

/// What became of the rows.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) imported: u64,
    /// Recorded by an earlier import, or earlier in the same file.
    pub(crate) already_there: u64,
    pub(crate) bad: u64,
    /// The first of the bad ones.
    pub(crate) faults: Vec<Fault>,
}

impl Report {
    pub(crate) fn rows(&self) -> u64 {
        self.imported + self.already_there + self.bad
    }

    fn fault(&mut self, fault: Fault) {
        self.bad += 1;
        if self.faults.len() < FAULTS_LISTED {
            self.faults.push(fault);
        }
    }

    fn add(&mut self, other: Report) {
        self.imported += other.imported;
        self.already_there += other.already_there;
        self.bad += other.bad;
        self.faults.extend(other.faults);
        self.faults.sort_by_key(|fault| fault.line);
        self.faults.truncate(FAULTS_LISTED);
    }
}

/// A row that was not recorded.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {reason}")]
pub(crate) struct Fault {
    line: u64,
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error(transparent)]
    Unreadable(#[from] BadRow),
    #[error(transparent)]
    Refused(#[from] AccountError),
}

/// Why an import stopped. What was recorded before stays, and the next import goes on from there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error("cannot read `{}`", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("`{}` is no file of transactions: its first line is not \
        `{}`", .0.display(), HEADER.join(";"))]
    Header(PathBuf),
    #[error("cannot record line {line}")]
    Store {
        line: u64,
        source: CommandError<AccountError>,
    },
    #[error("a part of the import broke down")]
    Lane(#[from] tokio::task::JoinError),
}

/// A row on its way to the log.
struct Row {
    line: u64,
    bytes: u64,
    transaction: Transaction,
}

/// A file of transactions, past its header.
pub(crate) struct Source {
    path: PathBuf,
    file: BufReader<File>,
    bytes: u64,
    header_bytes: u64,
}

impl Source {
    /// Opens the file and looks at its first line: what is no such file is an error before anything
    /// is done with a store.
    pub(crate) fn open(path: &Path) -> Result<Source, ImportError> {
        let cannot_read = |source| ImportError::File {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(cannot_read)?;
        let bytes = file.metadata().map_err(cannot_read)?.len();
        let mut file = BufReader::new(file);
        let mut header = Vec::new();
        let mut start = (&mut file).take(transaction::LINE_BYTES_MAX as u64);
        start.read_until(b'\n', &mut header).map_err(cannot_read)?;
        if !transaction::is_header(header.trim_ascii_end()) {
            return Err(ImportError::Header(path.to_owned()));
        }
        Ok(Source {
            path: path.to_owned(),
            file,
            bytes,
            header_bytes: header.len() as u64,
        })
    }
}

/// Records every row of the file that is not recorded yet. The bar is told the bytes that are done.
pub(crate) async fn import(
    db: &Annals,
    source: Source,
    bar: &ProgressBar,
) -> Result<Report, ImportError> {
    bar.set_length(source.bytes);
    bar.inc(source.header_bytes);
    let mut lanes = Vec::new();
    let mut work = JoinSet::new();
    for _ in 0..LANES {
        let (lane, rows) = mpsc::channel(LANE_ROWS);
        lanes.push(lane);
        work.spawn(record(db.clone(), rows, bar.clone()));
    }
    let bar = bar.clone();
    // Files are read by blocking calls, so the reader has a thread of its own.
    work.spawn_blocking(move || deal(source, &lanes, &bar));

    let mut report = Report::default();
    // Leaving early drops the set, which stops the lanes, which stops the reader.
    while let Some(part) = work.join_next().await {
        report.add(part??);
    }
    Ok(report)
}

/// Reads rows and deals them to the lanes, until the file ends or a lane has stopped.
fn deal(
    mut source: Source,
    lanes: &[mpsc::Sender<Row>],
    bar: &ProgressBar,
) -> Result<Report, ImportError> {
    let mut report = Report::default();
    let mut text = Vec::new();
    for line in 2.. {
        let read = read_line(&mut source.file, &mut text);
        let (bytes, is_whole) = read.map_err(|error| ImportError::File {
            path: source.path.clone(),
            source: error,
        })?;
        if bytes == 0 {
            break;
        }
        let row = text.trim_ascii_end();
        if row.is_empty() {
            bar.inc(bytes);
            continue;
        }
        let parsed = if is_whole {
            transaction::parse(row)
        } else {
            Err(BadRow::TooLong)
        };
        match parsed {
            Ok(transaction) => {
                let lane = &lanes[(transaction.account_id % LANES) as usize];
                let row = Row {
                    line,
                    bytes,
                    transaction,
                };
                if lane.blocking_send(row).is_err() {
                    // The lane has stopped, and says why.
                    break;
                }
            }
            Err(error) => {
                bar.inc(bytes);
                report.fault(Fault {
                    line,
                    reason: error.into(),
                });
            }
        }
    }
    Ok(report)
}

/// Reads a line: its bytes in the file, and whether `text` holds all of it. What is longer than any
/// row is passed over without being kept.
fn read_line(file: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<(u64, bool)> {
    text.clear();
    let mut bytes = 0;
    loop {
        let piece = file.fill_buf()?;
        let end = piece.iter().position(|&byte| byte == b'\n');
        let piece = &piece[..end.map_or(piece.len(), |end| end + 1)];
        let room = transaction::LINE_BYTES_MAX.saturating_sub(text.len());
        text.extend_from_slice(&piece[..piece.len().min(room)]);
        let read = piece.len();
        bytes += read as u64;
        file.consume(read);
        if end.is_some() || read == 0 {
            return Ok((bytes, bytes == text.len() as u64));
        }
    }
}

/// One lane: one command after the other.
async fn record(
    db: Annals,
    mut rows: mpsc::Receiver<Row>,
    bar: ProgressBar,
) -> Result<Report, ImportError> {
    let mut report = Report::default();
    while let Some(Row {
        line,
        bytes,
        transaction,
    }) = rows.recv().await
    {
        let occurred_at = transaction.occurred_at();
        let Transaction {
            account_id,
            direction,
            amount,
            slip,
            ..
        } = transaction;
        let account = db.aggregate::<Account>(account_id);
        let key = slip.trans_id.to_string();
        // The key makes the row the same request whenever it is sent: it takes effect once, also
        // when the import is killed and run again.
        let mut moves = 0;
        let done = loop {
            let command = account.run(|account| account.record(direction, amount, slip.clone()));
            let command = command.idempotency_key(&key).occurred_at(occurred_at);
            match command.await {
                // No process owns the partition just now; who owns it next is not known yet.
                Err(CommandError::Append(AppendError::OwnershipMoving)) if moves < MOVES_MAX => {
                    moves += 1;
                    let next = tokio::time::Instant::now() + MOVES;
                    tokio::time::interval_at(next, MOVES).tick().await;
                }
                done => break done,
            }
        };
        match done {
            Ok(done) if done.was_repeated() => report.already_there += 1,
            Ok(_) => report.imported += 1,
            Err(CommandError::Refused(refusal)) => report.fault(Fault {
                line,
                reason: refusal.into(),
            }),
            Err(source) => return Err(ImportError::Store { line, source }),
        }
        bar.inc(bytes);
    }
    Ok(report)
}
