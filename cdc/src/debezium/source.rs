//! What Debezium wrote, as a source: a file of JSON lines, or the log of a topic.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use annals_core::{Annals, EventId, RecordedEvent};
use async_trait::async_trait;

use super::adapter::Adapter;
use super::envelope::DebeziumMessage;
use super::lines::{Lines, id_of};
use super::types::ColumnType;
use crate::ingest::{Chunk, Mark, Source, SourceError, SourceFailure, SourceStatus};
use crate::log_reader::{LOOK_AGAIN, LogReader};
use crate::record::Record;
use crate::taken::Taken;

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
    taken: Taken,
    lines: Option<Lines>,
    /// What was read, from a message on that stops it.
    rest: VecDeque<Read>,
    /// Whether the status says that the last line of a file is not complete.
    is_unfinished: bool,
    /// What operators decided to skip: partitions and positions.
    skipped: BTreeSet<(u32, u64)>,
}

/// A message, and where it was.
#[derive(Debug)]
struct Read {
    partition: u32,
    position: u64,
    /// Of its event, or made of its line.
    id: EventId,
    /// Nothing of one that operators skip, and what is wrong with one that cannot be read.
    message: Result<Option<DebeziumMessage>, SourceError>,
}

#[derive(Debug)]
enum Input {
    File(PathBuf),
    Log(LogReader),
}

impl Debezium {
    /// A file of JSON lines, each `{"topic":…,"key":…,"value":…}`, perhaps with `headers`.
    /// What is added to its end later is taken in too.
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
            taken: Taken::default(),
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

    /// Goes on after events of a log that were archived before they were read: their changes are
    /// not taken in. Without this they stop the ingest.
    ///
    /// ```
    /// use annals_cdc::debezium::Debezium;
    /// use annals_core::Annals;
    ///
    /// # fn example(log: Annals) {
    /// let changes = Debezium::from(&log).skip_archived();
    /// # let _ = changes;
    /// # }
    /// ```
    pub fn skip_archived(mut self) -> Debezium {
        if let Input::Log(log) = &mut self.input {
            log.skip_archived();
        }
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
        let mut lines = match self.lines.take() {
            Some(lines) => lines,
            None => {
                let taken = self.taken.position(0);
                let (lines, last) = Lines::open(path, taken).await.map_err(cannot)?;
                if lines.number() < taken {
                    return Err(shorter(path, lines.number(), taken));
                }
                let is_known = self.taken.last(0);
                if taken > 0 && is_known.is_some_and(|known| last != Some(known)) {
                    return Err(another(path, taken));
                }
                lines
            }
        };
        let mut messages = VecDeque::new();
        while messages.len() < CHUNK_LINES {
            let Some(line) = lines.next().await.map_err(cannot)? else {
                break;
            };
            let number = lines.number();
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
            messages.push_back(Read {
                partition: 0,
                position: number,
                id: id_of(&line),
                message,
            });
        }
        // Of another file in its place the lines are looked at from the first one on.
        if !messages.is_empty() || !lines.is_replaced(path).await.map_err(cannot)? {
            self.lines = Some(lines);
        }
        Ok(messages)
    }
}

/// The messages of events of a log.
fn read(events: Vec<RecordedEvent>, skipped: &BTreeSet<(u32, u64)>) -> VecDeque<Read> {
    let messages = events.into_iter().map(|event| {
        let (partition, position) = (event.partition.0, event.position.get());
        let message = match message_of(&event) {
            _ if skipped.contains(&(partition, position)) => Ok(None),
            Ok(message) => Ok(Some(message)),
            Err(error) => {
                let what = format!(
                    "the event at {position} of partition {partition} is no message of Debezium"
                );
                Err(unfit(&what, partition, position).because(error))
            }
        };
        Read {
            partition,
            position,
            id: event.id,
            message,
        }
    });
    messages.collect()
}

/// What was read is not in the file any more.
fn shorter(path: &Path, found: u64, read: u64) -> SourceError {
    let lines = if found == 1 { "line" } else { "lines" };
    let what = format!("has {found} {lines}, and {read} were read");
    not_the_one(path, &what)
}

/// The line that was read last is another one by now.
fn another(path: &Path, number: u64) -> SourceError {
    not_the_one(path, &format!("has another line {number} than was read"))
}

fn not_the_one(path: &Path, what: &str) -> SourceError {
    let what = format!(
        "{} {what}: it is not the file that was read. Put that file back, or give this ingest \
         another name",
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
        self.taken = Taken::after(ingest, &self.name(), last)?;
        match &mut self.input {
            Input::Log(log) => log.begin(ingest, &mut self.taken).await,
            Input::File(_) => Ok(()),
        }
    }

    async fn next(&mut self) -> Result<Chunk, SourceError> {
        let mut messages = self.messages().await?;
        if messages.is_empty() {
            return Ok(Chunk::default());
        }
        let mut records: Vec<Record> = Vec::new();
        let mut count = 0;
        while let Some(read) = messages.pop_front() {
            let (partition, position, id) = (read.partition, read.position, read.id);
            let named = Some((partition, position));
            let taken = match read.message {
                Ok(Some(message)) => self.adapter.take_at(&message, named).map_err(|error| {
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
                    messages.push_front(Read {
                        partition,
                        position,
                        id,
                        message: Err(error),
                    });
                    self.rest = messages;
                    break;
                }
            }
            count += 1;
            self.taken.add(partition, position, id);
        }
        // A half of a changed key does not wait for the other one beyond what is appended at once.
        records.extend(self.adapter.flush());
        let mut chunk = self.taken.chunk(self.name(), records);
        chunk.equal.clone_from(self.adapter.equal());
        Ok(chunk)
    }

    fn has_messages(&self) -> bool {
        true
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
