//! What Debezium wrote, as a source: a file of JSON lines, or the log of a topic.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use annals_core::{Annals, RecordedEvent};
use async_trait::async_trait;

use super::adapter::Adapter;
use super::envelope::DebeziumMessage;
use super::lines::Lines;
use super::types::ColumnType;
use crate::ingest::{Chunk, Mark, Resume, Source, SourceError, SourceFailure, SourceStatus};
use crate::log_reader::{LOOK_AGAIN, LogReader};
use crate::record::Record;

/// Lines of one chunk.
const CHUNK_LINES: usize = 1_000;

/// What Debezium wrote, as a source of an ingest. Debezium may repeat itself: what is known already
/// is skipped.
///
/// ```
/// use annals_cdc::Ingest;
/// use annals_cdc::debezium::Debezium;
///
/// let orders = Debezium::file("orders.jsonl").identity_full("public.orders");
/// let ingest = Ingest::named("orders").from(orders);
/// # let _ = ingest;
/// ```
#[derive(Debug)]
#[must_use = "it does nothing before an ingest has it"]
pub struct Debezium {
    input: Input,
    adapter: Adapter,
    /// Of each partition: up to where it was taken.
    taken: BTreeMap<u32, u64>,
    lines: Option<Lines>,
    /// What was read, from a message on that stops it.
    rest: VecDeque<Read>,
    /// Whether the status says that the last line of a file is not complete.
    is_unfinished: bool,
    /// What operators decided to skip: partitions and positions.
    skipped: BTreeSet<(u32, u64)>,
}

/// A message, with its partition and position; nothing of one that operators skip, and what is
/// wrong with one that cannot be read.
type Read = (u32, u64, Result<Option<DebeziumMessage>, SourceError>);

#[derive(Debug)]
enum Input {
    File(PathBuf),
    Log(LogReader),
}

impl Debezium {
    /// A file of JSON lines, each `{"topic":…,"key":…,"value":…}`, perhaps with `headers`. What is
    /// added to its end later is taken in too.
    pub fn file(path: impl Into<PathBuf>) -> Debezium {
        Debezium::new(Input::File(path.into()))
    }

    /// The log of one topic or of several, such as a topic of Kafka that `annals::kafka` reads: the
    /// content of each event is a value of Debezium.
    pub fn from(log: &Annals) -> Debezium {
        Debezium::new(Input::Log(LogReader::of(log)))
    }

    fn new(input: Input) -> Debezium {
        Debezium {
            input,
            adapter: Adapter::default(),
            taken: BTreeMap::new(),
            lines: None,
            rest: VecDeque::new(),
            is_unfinished: false,
            skipped: BTreeSet::new(),
        }
    }

    /// As [`Adapter::identity_full`].
    pub fn identity_full(mut self, table: &str) -> Debezium {
        self.adapter = self.adapter.identity_full(table);
        self
    }

    /// As [`Adapter::unavailable`].
    pub fn unavailable(mut self, placeholder: &str) -> Debezium {
        self.adapter = self.adapter.unavailable(placeholder);
        self
    }

    /// As [`Adapter::columns`].
    pub fn columns(
        mut self,
        table: &str,
        columns: impl IntoIterator<Item = ColumnType>,
    ) -> Debezium {
        self.adapter = self.adapter.columns(table, columns);
        self
    }

    fn name(&self) -> String {
        match &self.input {
            Input::File(path) => format!("debezium file {}", path.display()),
            Input::Log(log) => format!("debezium log {}", log.id()),
        }
    }

    /// Some messages, and where each was. Waits for them.
    async fn messages(&mut self) -> Result<VecDeque<Read>, SourceError> {
        if !self.rest.is_empty() {
            return Ok(std::mem::take(&mut self.rest));
        }
        if let Input::Log(log) = &mut self.input {
            let events = log.next().await?;
            return Ok(read(events, &self.skipped));
        }
        loop {
            let lines = self.lines().await?;
            let is_unfinished = self.lines.as_ref().is_some_and(Lines::is_unfinished);
            // Nothing, when the status is another.
            if !lines.is_empty() || is_unfinished != self.is_unfinished {
                self.is_unfinished = is_unfinished && lines.is_empty();
                return Ok(lines);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn lines(&mut self) -> Result<VecDeque<Read>, SourceError> {
        let Input::File(path) = &self.input else {
            return Ok(VecDeque::new());
        };
        let cannot = |error: std::io::Error| {
            let what = format!("cannot read {}", path.display());
            SourceError::new(SourceFailure::Retry, what).because(error)
        };
        let mut number = self.taken.get(&0).copied().unwrap_or_default();
        let mut lines = match self.lines.take() {
            Some(lines) => lines,
            None => {
                let (lines, found) = Lines::open(path, number).await.map_err(cannot)?;
                if found < number {
                    return Err(shorter(path, found, number));
                }
                lines
            }
        };
        let mut messages = VecDeque::new();
        while messages.len() < CHUNK_LINES {
            let Some(line) = lines.next().await.map_err(cannot)? else {
                break;
            };
            number += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let message = match serde_json::from_slice(&line) {
                _ if self.skipped.contains(&(0, number)) => Ok(None),
                Ok(message) => Ok(Some(message)),
                Err(error) => {
                    let what = format!("line {number} of {} is no message", path.display());
                    Err(unfit(&what, 0, number).because(error))
                }
            };
            messages.push_back((0, number, message));
        }
        self.lines = Some(lines);
        Ok(messages)
    }
}

/// The messages of events of a log.
fn read(events: Vec<RecordedEvent>, skipped: &BTreeSet<(u32, u64)>) -> VecDeque<Read> {
    let messages = events.into_iter().map(|event| {
        let (partition, position) = (event.partition.0, event.position.get());
        if skipped.contains(&(partition, position)) {
            return (partition, position, Ok(None));
        }
        let message = message_of(&event).map_err(|error| {
            let what = format!(
                "the event at {position} of partition {partition} is no message of Debezium"
            );
            unfit(&what, partition, position).because(error)
        });
        (partition, position, message.map(Some))
    });
    messages.collect()
}

/// What was read is not in the file any more.
fn shorter(path: &Path, found: u64, read: u64) -> SourceError {
    let lines = if found == 1 { "line" } else { "lines" };
    let what = format!(
        "{} has {found} {lines}, and {read} were read: it is not the file that was read. Put that \
         file back, or give this ingest another name",
        path.display()
    );
    SourceError::new(SourceFailure::Stop, what)
}

/// A message that an operator has to decide about.
fn unfit(what: &str, partition: u32, position: u64) -> SourceError {
    let what = format!("{what} (skip it with `skip_message({partition}, {position}, reason)`)");
    SourceError::new(SourceFailure::Stop, what)
}

/// A record of a topic, as its log has it: the key is in the name of the stream, or beside the
/// event where that could not hold it.
fn message_of(event: &RecordedEvent) -> Result<DebeziumMessage, serde_json::Error> {
    let own = event.metadata.keys.get("kafka.key").map(String::as_str);
    let named = Some(event.stream.id()).filter(|id| !id.starts_with('~') && !id.is_empty());
    let value = std::str::from_utf8(&event.payload).unwrap_or("\u{0}");
    let value = Some(value).filter(|value| !value.is_empty());
    let mut message = DebeziumMessage::new(event.stream.category(), own.or(named), value)?;
    message.partition = event.partition.0;
    for (name, text) in &event.metadata.keys {
        if let Some(name) = name.strip_prefix("kafka.header.__debezium.") {
            message = message.header(&format!("__debezium.{name}"), text)?;
        }
    }
    Ok(message)
}

#[async_trait]
impl Source for Debezium {
    async fn begin(&mut self, ingest: &str, last: Option<&Mark>) -> Result<(), SourceError> {
        self.lines = None;
        self.rest.clear();
        self.is_unfinished = false;
        self.adapter
            .resume(last.map_or_else(Default::default, |last| last.equal.clone()));
        self.taken.clear();
        if let Some(last) = last {
            let name = self.name();
            if *last.source != *name {
                return Err(SourceError::new(
                    SourceFailure::Stop,
                    format!(
                        "the last mark of `{ingest}` is of another source, `{}`, and this one is \
                         `{name}`: give this ingest another name",
                        last.source
                    ),
                ));
            }
            if let Some(Resume::Positions(taken)) = &last.resume {
                self.taken.clone_from(taken);
            }
        }
        if let Input::Log(log) = &mut self.input {
            log.begin(&self.taken);
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Chunk, SourceError> {
        let mut messages = self.messages().await?;
        if messages.is_empty() {
            return Ok(Chunk::default());
        }
        let mut records: Vec<Record> = Vec::new();
        let mut count = 0;
        while let Some((partition, position, message)) = messages.pop_front() {
            let taken = match message {
                Ok(Some(message)) => self.adapter.take(&message).map_err(|error| {
                    let what = format!("position {position} of partition {partition} is unusable");
                    unfit(&what, partition, position).because(error)
                }),
                Ok(None) => Ok(Vec::new()),
                Err(error) => Err(error),
            };
            match taken {
                Ok(taken) => records.extend(taken),
                Err(error) if count == 0 => return Err(error),
                Err(error) => {
                    // What comes before it is given first.
                    messages.push_front((partition, position, Err(error)));
                    self.rest = messages;
                    break;
                }
            }
            count += 1;
            self.taken.insert(partition, position);
        }
        // A half of a changed key does not wait for the other one beyond what is appended at once.
        records.extend(self.adapter.flush());
        let mut chunk = Chunk::repeatable(self.name(), records, self.taken.clone());
        chunk.equal.clone_from(self.adapter.equal());
        Ok(chunk)
    }

    fn skip_messages(&mut self, messages: &[(u32, u64)]) {
        self.skipped = messages.iter().copied().collect();
    }

    fn status(&self) -> SourceStatus {
        let mut status = SourceStatus::default();
        if let Input::File(path) = &self.input
            && self.lines.as_ref().is_some_and(Lines::is_unfinished)
        {
            status.warnings.push(format!(
                "the last line of {} is not complete: it is taken in when it is",
                path.display()
            ));
        }
        status
    }

    async fn confirm(&mut self, _up_to: &Mark) -> Result<(), SourceError> {
        Ok(())
    }
}
