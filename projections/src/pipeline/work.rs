//! The worker of a slot: read, send through the stages, commit rows and state together, and again.
//!
//! While one commit is on its way the next records are read and folded. When it was refused,
//! everything at hand is thrown away, and the slot begins again from the store.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{
    Checkpoint, EventId, Failure, Filter, GenerationId, Partition, Position, ReadLog, RowChange,
    StoreError, ViewCommit,
};
use annals_runner::{
    Activity, CommittedStep, HeldLease, Pages, Skips, Slot, SlotState, Tasks, Work, WorkError,
    event_at, not_read_before_removal, same_log,
};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::blueprint::Blueprint;
use super::journal::Writes;
use super::machine::{Machine, OutRow, Saving, Taken};
use super::outbox::{Outbox, SentTo};
use super::panics::Redo;
use super::prepared::PreparedPage;
use super::rows::{IndexPlaces, written};
use super::share::Share;
use crate::options::Options;

/// Events read at once.
const PAGE_EVENTS: usize = 4_096;
/// How long a batch goes on while what is built has no readers.
const BUILD_BATCH: Duration = Duration::from_secs(1);
/// Rows of one commit, and bytes of state that one read of the store gives.
const ROWS_MAX: usize = 20_000;
const STATE_PAGE_BYTES: usize = 4 << 20;

/// Runs a slot of a pipeline.
pub(crate) struct RunSlot {
    slot: Slot,
    blueprint: Arc<Blueprint>,
    pages: Arc<Pages<PreparedPage>>,
    options: Options,
}

impl Deref for RunSlot {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        &self.slot
    }
}

impl Work for RunSlot {
    fn slot(&self) -> &Slot {
        &self.slot
    }

    /// The clocks of its partitions, and what it sends by them, are those that it began with.
    fn check_partitions(&self) -> Result<(), WorkError> {
        self.slot.check_partitions_of(&self.slot.generation, false)
    }

    fn filter(&self) -> Filter {
        self.blueprint.filter()
    }

    async fn work(
        &self,
        held: &HeldLease,
        mut tasks: Tasks,
        _: watch::Receiver<bool>,
    ) -> Result<(), WorkError> {
        let mut session = Session::begin(self, held).await?;
        let mut hint = self.context.log().hint();
        loop {
            hint.reset();
            while let Some(task) = tasks.try_next() {
                task.answer(Ok(annals_runner::DrainResult::default()));
            }
            if let Some(reason) = session.held_up().await? {
                self.progress.state(SlotState::Waiting { reason });
                tokio::select! {
                    () = session.sender_moves() => {}
                    task = tasks.next() => task.answer(Ok(annals_runner::DrainResult::default())),
                }
                continue;
            }
            let mut moved = false;
            for index in 0..session.readers.len() {
                moved |= session.step(index).await?;
            }
            if moved {
                continue;
            }
            session.settle().await?;
            self.progress.state(SlotState::Live);
            let readers = session.readers.iter();
            let after: Vec<_> = readers.map(|of| (of.partition, of.position)).collect();
            tokio::select! {
                () = self.wait_for_events(&mut hint, &after) => {}
                task = tasks.next() => task.answer(Ok(annals_runner::DrainResult::default())),
            }
        }
    }
}

type Page = Result<Arc<PreparedPage>, StoreError>;

/// One partition, and up to where the slot has it.
struct PartitionReader {
    partition: Partition,
    position: Position,
    event: Option<EventId>,
    ahead: Option<JoinHandle<Page>>,
}

/// A commit on its way.
struct Committed {
    partition: Partition,
    up_to: Position,
    taken: CommittedStep,
    watched: Option<Vec<RowChange>>,
}

/// While it lives, the status of the pipeline tells of the slot.
struct StatusOfSlot<'a>(&'a RunSlot);

impl StatusOfSlot<'_> {
    fn of(&self, machine: &mut Machine) {
        let RunSlot { blueprint, .. } = self.0;
        let told = blueprint.seen(self.slot(), machine);
        self.0.progress.event_time(told);
    }

    fn slot(&self) -> (GenerationId, u16) {
        (self.0.generation.id, self.0.number)
    }
}

impl Drop for StatusOfSlot<'_> {
    fn drop(&mut self) {
        self.0.blueprint.left(self.slot());
    }
}

/// From the taking of a lease to its loss.
struct Session<'a> {
    work: &'a RunSlot,
    told: StatusOfSlot<'a>,
    held: &'a HeldLease,
    machine: Machine,
    outbox: Outbox,
    sent: watch::Receiver<SentTo>,
    skips: Skips,
    readers: Vec<PartitionReader>,
    /// Up to where the next batch of a partition goes at most, because a stage panicked after it.
    ends: Option<(usize, Position)>,
    /// Up to where state of a partition is saved after each item, to find the one with which that
    /// fails.
    saves_each: Option<(usize, Position)>,
    committing: JoinSet<Result<Committed, annals_core::CommitError>>,
    indexes: IndexPlaces,
}

impl RunSlot {
    pub(crate) fn new(
        slot: Slot,
        blueprint: Arc<Blueprint>,
        pages: Arc<Pages<PreparedPage>>,
        options: Options,
    ) -> RunSlot {
        RunSlot {
            slot,
            blueprint,
            pages,
            options,
        }
    }

    fn request(&self, reader: &PartitionReader) -> ReadLog {
        ReadLog::after(reader.position)
            .partition(reader.partition)
            .filter(self.blueprint.filter())
            .limit(PAGE_EVENTS.min(self.options.batch_events_max))
    }

    /// A page with what its records are before the keys. Slots of one process that are at the
    /// same place read and prepare it once.
    fn page(&self, read: ReadLog) -> impl Future<Output = Page> + Send + use<> {
        let slot = self.slot.clone();
        let blueprint = Arc::clone(&self.blueprint);
        let pages = Arc::clone(&self.pages);
        async move {
            let partition = read.partition;
            let log = slot.context.log();
            let spec = &slot.generation.spec;
            let by = || Blueprint::divide_by(spec, log, partition);
            if spec.is_by_partition() {
                let page = log.read(read).await?;
                return Ok(Arc::new(blueprint.prepare(page, partition, by())));
            }
            let make = |page| blueprint.prepare(page, partition, by());
            pages.read(&slot, read, make).await
        }
    }

    async fn next_page(&self, reader: &mut PartitionReader) -> Page {
        match reader.ahead.take() {
            None => self.page(self.request(reader)).await,
            Some(ahead) => ahead.await.unwrap_or_else(|error| {
                let what = "a read of the log was aborted";
                Err(StoreError::new(Failure::Unavailable, what).because(error))
            }),
        }
    }

    /// Has the next page read while this one is worked on.
    async fn read_ahead(&self, reader: &mut PartitionReader) {
        let read = self.request(reader);
        reader.ahead = Some(tokio::spawn(self.page(read)));
        // What is spawned here begins on this thread, and only once this task waits: that may be
        // after the work.
        tokio::task::yield_now().await;
    }

    /// The stages of this slot, new.
    fn machine(&self) -> Machine {
        let share = Share::of_slot(self.number, &self.generation.spec);
        self.blueprint.machine(share)
    }

    /// Whether this generation has no readers yet.
    fn is_building(&self) -> bool {
        self.phase() == annals_core::Phase::Building && !self.progress.was_live()
    }
}

impl PartitionReader {
    /// Goes back to before an event: it and what comes after it are not taken.
    fn stop_before(&mut self, position: Position) {
        self.position = position.minus(1);
        self.event = None;
        self.ahead = None;
    }
}

impl<'a> Session<'a> {
    async fn begin(work: &'a RunSlot, held: &'a HeldLease) -> Result<Session<'a>, WorkError> {
        work.pages.forget();
        let generation = &work.generation;
        let views = &work.context.views;
        let partitions = work.context.log().partitions();
        let mut machine = work.machine();
        let checkpoints = views.checkpoints(generation.id).await?;
        let mut readers = Vec::new();
        let mut mine = Vec::new();
        let read = |of: &Partition| generation.spec.reads(work.number, *of);
        for partition in (0..partitions).map(Partition).filter(read) {
            let found = checkpoints
                .iter()
                .find(|of| (of.slot, of.partition) == (work.number, partition));
            let start = Checkpoint::start(work.number, partition);
            let checkpoint = found.unwrap_or(&start).clone();
            same_log(&**work.context.log(), generation, &checkpoint).await?;
            work.progress.reached(partition, checkpoint.position);
            work.workers
                .publish_step(generation.id, partition, checkpoint.position, None);
            readers.push(PartitionReader {
                partition,
                position: checkpoint.position,
                event: checkpoint.event,
                ahead: None,
            });
            mine.push(checkpoint);
        }
        let mut outbox = Outbox::default();
        let mut after: Option<bytes::Bytes> = None;
        loop {
            let page = views
                .read_state(
                    generation.id,
                    work.number,
                    after.as_deref(),
                    STATE_PAGE_BYTES,
                )
                .await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, value) in &page {
                if !outbox.read(key, value) {
                    machine.read(key, value)?;
                }
            }
        }
        if work.blueprint.appends() {
            work.blueprint.sender.read(&*work.context.views).await?;
        }
        machine.resume(mine.iter())?;
        let decisions = views.skip_decisions(&generation.spec.view).await?;
        let told = StatusOfSlot(work);
        told.of(&mut machine);
        Ok(Session {
            work,
            told,
            held,
            machine,
            outbox,
            sent: work.blueprint.sender.sent(),
            skips: Skips::of(decisions),
            readers,
            ends: None,
            saves_each: None,
            committing: JoinSet::new(),
            indexes: work.blueprint.index_places(),
        })
    }

    /// Takes one partition a batch further; whether there was anything.
    async fn step(&mut self, index: usize) -> Result<bool, WorkError> {
        let work = self.work;
        let begun = self.readers[index].position;
        let since = Instant::now();
        let building = work.is_building();
        let mut rows: Vec<OutRow> = Vec::new();
        let mut events = 0;
        let mut bytes = 0;
        let mut oldest = None;
        let mut stuck = None;
        loop {
            work.progress.turns_to(Activity::Reading);
            let reader = &mut self.readers[index];
            let page = work.next_page(reader).await?;
            let from = reader.position;
            oldest = oldest.or_else(|| page.oldest_after(from));
            work.progress
                .head(reader.partition, page.head.visible, oldest);
            if let (Some(removed), false) = (page.removed.first(), work.options.skips_archived) {
                let pipeline = format!("pipeline `{}`", work.blueprint.name);
                let ways = "do without with `Options::skip_archived`";
                return Err(not_read_before_removal(&pipeline, removed, ways));
            }
            if from >= page.scanned {
                break;
            }
            reader.position = page.scanned;
            reader.event = page.last;
            let more = !page.end;
            if more {
                work.read_ahead(reader).await;
            }
            work.progress.turns_to(Activity::Handling);
            let (new, of_new) = page.size_after(from);
            events += new;
            bytes += of_new;
            let to = page.scanned;
            let taken = self.machine.take(&page, from, &self.skips, &mut rows)?;
            match taken {
                Taken::Whole => {}
                Taken::Stuck(of) => {
                    self.readers[index].stop_before(of.position);
                    stuck = Some(of);
                    break;
                }
                Taken::Redo(redo) => {
                    // What comes before the page is written first, so that a page with many such
                    // items is all that is folded again for each.
                    self.ends = Some((index, if from > begun { from } else { to }));
                    self.go_back(index, begun, (redo, to))?;
                    return Ok(true);
                }
            }
            let made = rows.len() + self.machine.emitted();
            let reached = self.readers[index].position;
            let ends = self
                .ends
                .take_if(|(of, end)| *of == index && reached >= *end);
            let options = &work.options;
            let is_full = ends.is_some()
                || match building {
                    false => events >= options.batch_events_max,
                    true => events >= options.build_events_max || since.elapsed() >= BUILD_BATCH,
                };
            if !more || is_full || bytes >= options.batch_bytes_max || made >= ROWS_MAX {
                break;
            }
            work.progress.state(SlotState::CatchingUp);
        }
        let moved = self.readers[index].position > begun;
        if moved {
            match self.machine.save()? {
                Saving::Writes(state) => self.commit(index, begun, events, (rows, state)).await?,
                Saving::Redo(redo) => {
                    let to = self.readers[index].position;
                    self.ends = Some((index, to));
                    self.go_back(index, begun, (redo, to))?;
                    return Ok(true);
                }
            }
        }
        match stuck {
            Some(stuck) => {
                self.settle().await?;
                let partition = self.readers[index].partition;
                let oldest = Some(stuck.recorded_at);
                work.progress.oldest(partition, oldest);
                let of = work.context.log().partitions();
                Err(WorkError::Stopped(
                    work.blueprint.stuck(partition, of, &stuck),
                ))
            }
            None => Ok(moved),
        }
    }

    /// A stage panicked over an item, or made of one what cannot be saved, which shows up to a
    /// position: begins again from what was saved last.
    fn go_back(
        &mut self,
        index: usize,
        begun: Position,
        (redo, shown_at): (Redo, Position),
    ) -> Result<(), WorkError> {
        let work = self.work;
        match &redo {
            Redo::Without(of) => {
                tracing::warn!(pipeline = work.blueprint.name, "{of}; it is skipped");
            }
            Redo::SavingEach => self.saves_each = Some((index, shown_at)),
        }
        self.readers[index].stop_before(begun.next());
        self.machine.go_back(work.machine(), redo)
    }

    async fn commit(
        &mut self,
        index: usize,
        begun: Position,
        events: usize,
        (rows, mut state): (Vec<OutRow>, Writes),
    ) -> Result<(), WorkError> {
        let work = self.work;
        work.progress.turns_to(Activity::Committing);
        let reader = &self.readers[index];
        let to = reader.position;
        let is_found = |(of, end): &mut (usize, Position)| *of == index && to >= *end;
        if self.saves_each.take_if(is_found).is_some() {
            self.machine.saves_at_once();
        }
        self.machine.passed(reader.partition, reader.position);
        work.blueprint.check_room(&self.machine, work.number)?;
        let reader = &mut self.readers[index];
        let partition = reader.partition;
        let up_to = reader.position;
        if reader.event.is_none() {
            reader.event = event_at(&**work.context.log(), partition, up_to).await?;
        }
        let to = Checkpoint {
            slot: work.number,
            partition,
            position: up_to,
            event: reader.event,
            state: self.machine.note(partition).to_state(),
        };
        let (rows, versions) = written(rows, &self.indexes);
        state.extend(self.outbound(partition));
        self.settle().await?;
        let mut commit = ViewCommit::new(work.generation.id, self.held.lease(), begun, to);
        let watched = work.workers.is_watched(rows.len()).then(|| rows.clone());
        let taken = CommittedStep {
            events: events as u64,
            rows: rows.len(),
            ..CommittedStep::default()
        };
        commit.rows = rows;
        commit.versions = versions;
        commit.state = state;
        let views = work.context.views.clone();
        self.committing.spawn(async move {
            let begun = Instant::now();
            views.commit_view(commit).await?;
            let taken = CommittedStep {
                took: begun.elapsed(),
                ..taken
            };
            Ok(Committed {
                partition,
                up_to,
                taken,
                watched,
            })
        });
        work.progress.at_hand(0, self.machine.state_bytes() as u64);
        self.told.of(&mut self.machine);
        Ok(())
    }

    /// What a commit writes and removes of events on their way out.
    fn outbound(&mut self, partition: Partition) -> Writes {
        let mut emitted = self.machine.take_emitted();
        let sent = self.sent.borrow().clone();
        // A generation that is built says nothing about what its predecessor was done with.
        let done = sent.get(&partition).copied().unwrap_or_default();
        emitted.retain(|entry| entry.order.position > done.get());
        self.outbox.sent_to(&sent);
        self.outbox.write(partition, emitted)
    }

    /// Why it goes no further until more was sent. What a generation emitted that does not serve is
    /// not sent, and then it does not wait.
    async fn held_up(&mut self) -> Result<Option<String>, WorkError> {
        let work = self.work;
        let sender = &work.blueprint.sender;
        if self.outbox.waiting().0 == 0 {
            return Ok(None);
        }
        sender.look(&work.context.poll.seen().borrow());
        self.outbox.sent_to(&self.sent.borrow_and_update());
        let serving = work.workers.serving().map(|of| of.id);
        if serving != Some(work.generation.id) {
            return Ok(None);
        }
        let reason = sender.holds_up(&self.outbox);
        if reason.is_some() {
            self.settle().await?;
        }
        Ok(reason)
    }

    /// Returns when more may have been sent.
    async fn sender_moves(&mut self) {
        let mut polls = self.work.context.poll.seen();
        tokio::select! {
            _ = self.sent.changed() => {}
            _ = polls.changed() => {}
        }
    }

    /// Waits until the commit on its way was taken, if there is one.
    async fn settle(&mut self) -> Result<(), WorkError> {
        let work = self.work;
        let Some(ended) = self.committing.join_next().await else {
            return Ok(());
        };
        let Committed {
            partition,
            up_to,
            taken,
            watched,
        } = ended.map_err(|error| {
            StoreError::new(Failure::Unavailable, "a commit was aborted").because(error)
        })??;
        work.workers
            .publish_step(work.generation.id, partition, up_to, watched);
        work.progress.settled_to(partition, up_to, taken);
        work.blueprint.sender.committed();
        Ok(())
    }
}
