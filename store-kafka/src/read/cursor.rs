//! One sequential reader of a partition: a consumer on its own thread that reads a few pages ahead
//! and then waits, so that memory stays bounded however slow its readers are.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use annals_core::{Failure, Partition, Position, StoreError, with_causes};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::watch;

use super::mapping::{Mapper, offset_after};
use super::page::{Collecting, Page};
use crate::client::{ANSWER, Config, Context, EarlyEnd, PROPAGATION, Retry, position};
use crate::error::{failed, is_out_of_range, is_unknown_topic, unavailable};

/// Pages that are read before anybody asked for them, and that are kept after they were read, so
/// that others who follow the same partition find them.
const PAGES_AHEAD: usize = 4;
const PAGES_KEPT: usize = 4;

/// A cursor without a reader is closed after this.
const IDLE: Duration = Duration::from_secs(120);

/// How long one poll waits: what a cursor that is closed takes at most to end.
const POLL: Duration = Duration::from_millis(100);

/// What readers and the thread share.
#[derive(Debug)]
pub(crate) struct Cursor {
    state: Mutex<State>,
    /// Wakes the thread.
    wanted: Condvar,
    /// Wakes readers.
    moved: watch::Sender<u64>,
    /// Wakes the followers of the log.
    hint: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    pages: VecDeque<Arc<Page>>,
    /// The first page that was not asked for yet begins here.
    read_to: Position,
    /// Everything at or before this position was looked at.
    next: Position,
    /// The end of what was committed, as far as this cursor saw it.
    end: Option<Position>,
    closed: bool,
    ended: Option<Ended>,
    used: Instant,
}

/// Why a cursor reads no more.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// The offset that it wanted was removed.
    OutOfRange,
    /// It was idle for too long, or its log was dropped.
    Closed,
    /// Something that reading again from the same position may or may not mend.
    Failed(Failure, String),
}

/// What a cursor has for a reader.
#[derive(Debug)]
pub(crate) enum Found {
    /// A page that covers what comes after the position.
    Page(Arc<Page>),
    /// Everything up to its end was read; nothing more is there.
    AtEnd,
    /// Not yet: wait until it has moved.
    Later,
    /// The position is neither in its pages nor where it reads on.
    Elsewhere,
    /// It reads no more.
    Ended(Ended),
}

/// What a cursor's thread needs.
pub(crate) struct Source {
    pub(crate) config: Config,
    pub(crate) topic: String,
    pub(crate) partition: Partition,
    pub(crate) mapper: Mapper,
}

impl Cursor {
    /// Starts a thread that reads after `after`.
    pub(crate) fn start(
        source: Source,
        after: Position,
        hint: watch::Sender<u64>,
    ) -> Result<Arc<Cursor>, StoreError> {
        let cursor = Arc::new(Cursor {
            state: Mutex::new(State {
                pages: VecDeque::new(),
                read_to: after,
                next: after,
                end: None,
                closed: false,
                ended: None,
                used: Instant::now(),
            }),
            wanted: Condvar::new(),
            moved: watch::Sender::new(0),
            hint,
        });
        let thread = Arc::clone(&cursor);
        std::thread::Builder::new()
            .name(format!("kafka-read-{}", source.partition))
            .spawn(move || thread.run(source))
            .map_err(|error| unavailable("no thread for a reader").because(error))?;
        Ok(cursor)
    }

    /// Tells when it has moved.
    pub(crate) fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// What comes after a position.
    pub(crate) fn find(&self, after: Position) -> Found {
        let mut state = self.lock();
        if let Some(ended) = &state.ended {
            return Found::Ended(ended.clone());
        }
        if state.closed {
            return Found::Ended(Ended::Closed);
        }
        state.used = Instant::now();
        let page = state
            .pages
            .iter()
            .find(|page| page.after <= after && after < page.scanned);
        if let Some(page) = page.map(Arc::clone) {
            if state.read_to < page.scanned {
                state.read_to = page.scanned;
                self.wanted.notify_one();
            }
            return Found::Page(page);
        }
        if after != state.next {
            return Found::Elsewhere;
        }
        match state.end {
            Some(end) if end <= after => Found::AtEnd,
            _ => Found::Later,
        }
    }

    /// Whether a page that it still has covers this range.
    pub(crate) fn covering(&self, after: Position, up_to: Position) -> Option<Arc<Page>> {
        let state = self.lock();
        let mut pages = state.pages.iter();
        let page = pages.find(|page| page.after <= after && up_to <= page.scanned);
        page.map(Arc::clone)
    }

    /// When it was read from last.
    pub(crate) fn used(&self) -> Instant {
        self.lock().used
    }

    /// Ends its thread.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wanted.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut source: Source) {
        let context = Context::default();
        let ended = match self.follow(&mut source, &context) {
            Ok(()) => Ended::Closed,
            Err(ended) => ended,
        };
        let mut state = self.lock();
        state.ended = Some(ended);
        state.pages.clear();
        drop(state);
        self.tell();
    }

    /// Reads until it is closed.
    fn follow(&self, source: &mut Source, context: &Context) -> Result<(), Ended> {
        let ended = |error: StoreError| {
            let why = with_causes(&error).to_string();
            Ended::Failed(error.failure(), why)
        };
        let topic = source.topic.clone();
        let partition = source.partition;
        let doing = || format!("partition {partition} of topic `{topic}` cannot be read");
        let start = self.lock().next;
        let config = source.config.reader();
        let consumer = BaseConsumer::from_config_and_context(&config, context.clone())
            .map_err(|error| ended(failed(doing(), error)))?;
        let mut list = TopicPartitionList::new();
        let offset = Offset::Offset(offset_after(start));
        list.add_partition_offset(&topic, partition.0 as i32, offset)
            .and_then(|()| consumer.assign(&list))
            .map_err(|error| ended(failed(doing(), error)))?;
        let mut early = EarlyEnd::default();
        let began = Instant::now();
        while self.wait_for_room() {
            let mut collecting = Collecting::default();
            let mut at_end = false;
            let mut timeout = POLL;
            while !collecting.is_full() {
                match consumer.poll(timeout) {
                    Some(Ok(message)) => collecting.push(&message),
                    Some(Err(KafkaError::PartitionEOF(_))) => {
                        at_end = true;
                        break;
                    }
                    Some(Err(error)) if is_out_of_range(&error) => return Err(Ended::OutOfRange),
                    // It was there when the log was opened: a broker may not have heard of it.
                    Some(Err(error))
                        if is_unknown_topic(&error) && began.elapsed() > PROPAGATION =>
                    {
                        return Err(ended(failed(doing(), error)));
                    }
                    // The client mends it, or goes on complaining; then readers close the cursor.
                    Some(Err(error)) => {
                        tracing::debug!(%error, topic, partition = partition.0, "a read failed");
                    }
                    None => break,
                }
                timeout = Duration::ZERO;
            }
            let after = self.lock().next;
            let mut scanned = collecting.last().unwrap_or(after);
            if at_end {
                let index = partition.0 as i32;
                let reached = position(&consumer, &topic, index);
                let reached = early.reached(reached, offset_after(after), || {
                    let bounds = Retry::within(ANSWER)
                        .block(|within| consumer.fetch_watermarks(&topic, index, within));
                    bounds.map(|(_, end)| end)
                });
                let Some(reached) = reached.map_err(|error| ended(failed(doing(), error)))? else {
                    consumer
                        .assign(&list)
                        .map_err(|error| ended(failed(doing(), error)))?;
                    continue;
                };
                scanned = scanned.max(Position::new(reached.max(0) as u64));
            }
            if scanned > after {
                let page = collecting.page(after, scanned, &mut source.mapper);
                self.put(page, at_end);
            } else if at_end {
                self.ended_at(scanned);
            }
        }
        Ok(())
    }

    /// Waits while readers have enough; `false` when the cursor is to end.
    fn wait_for_room(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.closed || state.used.elapsed() > IDLE {
                return false;
            }
            let read_to = state.read_to;
            let ahead = state.pages.iter().filter(|page| page.scanned > read_to);
            if ahead.count() < PAGES_AHEAD {
                return true;
            }
            let waited = self.wanted.wait_timeout(state, Duration::from_secs(1));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn put(&self, page: Page, at_end: bool) {
        let mut state = self.lock();
        state.next = page.scanned;
        state.end = at_end.then_some(page.scanned);
        state.pages.push_back(Arc::new(page));
        let read_to = state.read_to;
        while state
            .pages
            .iter()
            .filter(|page| page.scanned <= read_to)
            .count()
            > PAGES_KEPT
        {
            state.pages.pop_front();
        }
        drop(state);
        self.tell();
    }

    fn ended_at(&self, end: Position) {
        let mut state = self.lock();
        if state.end == Some(end) {
            return;
        }
        state.end = Some(end);
        drop(state);
        self.tell();
    }

    fn tell(&self) {
        self.moved.send_modify(|count| *count += 1);
        self.hint.send_modify(|count| *count += 1);
    }
}
