//! The sender of a pipeline: takes the events of the outboxes of all slots in the order of their
//! causes, has them delivered, and notes up to which cause that was done.
//!
//! The note belongs to the name of the pipeline and not to a build of it: a generation that takes
//! over goes on after it, so that nothing is sent for what its predecessor was done with.
//!
//! What a store or an outlet refuses for good is a dead record beside the note, and holds nothing
//! else back. What was not delivered comes again in smaller batches.

mod append;
mod link;
mod merge;
mod outrun;
mod part;
mod publish;
mod refused;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use annals_core::{
    Checkpoint, EventId, Filter, Generation, GenerationSpec, NewEvent, Partition, Phase, Position,
    RowChange, StreamId,
};
use annals_runner::{
    BatchLimit, CommittedStep, DrainResult, HeldLease, Seen, Slot, SlotState, Tasks, Work,
    WorkError, chain, event_at, same_log, serving,
};
use tokio::sync::watch;
use tokio::time::Duration;

pub(crate) use link::SenderLink;
pub(crate) use part::{SenderPart, begin};

use self::append::{Ready, append_all};
use self::merge::Outboxes;
use self::outrun::Outrun;
use self::publish::{Outlets, UpTo};
use self::refused::Refused;
use super::append::OpenOutlet;
use super::output::Leaving;

/// How soon it is noted that a stretch of the log caused nothing.
const NOTE_AFTER: Duration = Duration::from_millis(100);

/// Sends the events of a pipeline.
pub(crate) struct RunSender {
    slot: Slot,
    /// What its generations are made of.
    pipeline: Arc<GenerationSpec>,
    filter: Filter,
    link: Arc<SenderLink>,
    outlets: Vec<OpenOutlet>,
    /// Kept over failures: what was too large to be delivered is not tried again as it was.
    batch_limit: BatchLimit,
}

impl Deref for RunSender {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        &self.slot
    }
}

impl Work for RunSender {
    fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Its note is of no build: what counts are the partitions of the generation that it serves,
    /// and they are compared as soon as that is known.
    fn check_partitions(&self) -> Result<(), WorkError> {
        Ok(())
    }

    fn filter(&self) -> Filter {
        self.filter.clone()
    }

    async fn work(
        &self,
        held: &HeldLease,
        tasks: Tasks,
        _: watch::Receiver<bool>,
    ) -> Result<(), WorkError> {
        let ended = self.follow(held, tasks).await;
        if let Err(error) = &ended {
            self.link.failed(Some(chain(error)));
        }
        ended
    }
}

impl RunSender {
    /// What was delivered. A batch that was not may have been too large for the time that it has.
    fn delivered<T>(&self, done: Result<T, WorkError>) -> Result<T, WorkError> {
        if matches!(done, Err(WorkError::Retry(_))) {
            self.batch_limit.failed();
        }
        done
    }

    async fn follow(&self, held: &HeldLease, mut tasks: Tasks) -> Result<(), WorkError> {
        let mut commits = self.link.commits();
        let mut polls = self.context.poll.seen();
        let mut seen = self.context.poll.now().await?;
        let mut session = Session::begin(self, held).await?;
        loop {
            commits.mark_unchanged();
            polls.mark_unchanged();
            let moved = session.step(&seen).await?;
            self.link.failed(None);
            if moved {
                continue;
            }
            loop {
                let note_at = session.note_at;
                tokio::select! {
                    _ = commits.changed() => break,
                    _ = polls.changed() => {
                        seen = Arc::clone(&polls.borrow_and_update());
                        session.say_if_outrun(&seen);
                        if session.has_moved(&seen) {
                            break;
                        }
                    }
                    () = sleep_until(note_at) => session.note_passed().await?,
                    task = tasks.next() => task.answer(Ok(DrainResult::default())),
                }
            }
        }
    }
}

async fn sleep_until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// From the taking of the lease to its loss.
struct Session<'a> {
    work: &'a RunSender,
    held: &'a HeldLease,
    /// By partition.
    noted: Vec<Position>,
    /// Up to where there is nothing left to send: at or after what is noted.
    passed: Vec<Position>,
    /// The lowest checkpoint of the slots, when it was last looked at.
    lowest: Vec<Position>,
    note_at: Option<tokio::time::Instant>,
    outboxes: Outboxes,
    outrun: Outrun,
    outlets: Outlets,
    skipped: HashSet<(Partition, Position)>,
    /// What was refused since the last note.
    dead: Vec<RowChange>,
}

impl<'a> Session<'a> {
    async fn begin(work: &'a RunSender, held: &'a HeldLease) -> Result<Session<'a>, WorkError> {
        let log = work.context.log();
        let mut noted = Vec::new();
        for partition in (0..log.partitions()).map(Partition) {
            let checkpoint = work.checkpoint(partition).await?;
            same_log(&**log, &work.generation, &checkpoint).await?;
            work.progress.reached(partition, checkpoint.position);
            work.link.has_sent(partition, checkpoint.position);
            noted.push(checkpoint.position);
        }
        let skips = work
            .context
            .views
            .skip_decisions(&work.link.stored_name())
            .await?;
        let skipped = skips.into_iter().filter(|of| of.key.is_none());
        Ok(Session {
            work,
            held,
            passed: noted.clone(),
            lowest: vec![Position::START; noted.len()],
            noted,
            note_at: None,
            outboxes: Outboxes::default(),
            outrun: Outrun::default(),
            outlets: Outlets::open(work.outlets.clone(), log.id()).await?,
            skipped: skipped.map(|of| (of.partition, of.position)).collect(),
            dead: Vec::new(),
        })
    }

    /// The generation whose events are sent: the one that serves in this program, which also
    /// follows it. Until one does, it is the newest live one of another program.
    fn served<'s>(&self, seen: &'s Seen) -> Option<&'s Generation> {
        let spec = &self.work.pipeline;
        let all = || seen.generations(&spec.view);
        serving(all(), spec).or_else(|| all().filter(|of| of.phase == Phase::Live).last())
    }

    /// Shows in the status when its generation makes no progress while the live one, of another
    /// program, does.
    fn say_if_outrun(&mut self, seen: &Seen) {
        let all = seen.generations(&self.work.pipeline.view);
        let live = all.filter(|of| of.phase == Phase::Live).last();
        let partitions = self.noted.len();
        let reached = |of: &Generation| {
            let state = seen.state(of.id)?;
            Some(lowest_of(of, &state.checkpoints, partitions))
        };
        let (Some(served), Some(live)) = (self.served(seen), live) else {
            return;
        };
        let (Some(at), Some(ahead)) = (reached(served), reached(live)) else {
            return;
        };
        if let Some(reason) = self.outrun.look((served, at), (live, &ahead)) {
            self.work.progress.state(SlotState::Waiting { reason });
        }
    }

    /// Whether a poll shows something that was not looked at yet.
    fn has_moved(&self, seen: &Seen) -> bool {
        let Some(served) = self.served(seen) else {
            return false;
        };
        let Some(state) = seen.state(served.id) else {
            return false;
        };
        let lowest = lowest_of(served, &state.checkpoints, self.lowest.len());
        !self.outboxes.are_of(served.id) || lowest.iter().zip(&self.lowest).any(|(a, b)| a > b)
    }

    /// Sends what can be sent now; whether there was anything.
    async fn step(&mut self, seen: &Seen) -> Result<bool, WorkError> {
        let work = self.work;
        let Some(served) = self.served(seen) else {
            return Ok(false);
        };
        work.slot.check_partitions_of(served, false)?;
        self.outboxes.turn_to(served, self.noted.len());
        let checkpoints = work.context.views.checkpoints(served.id).await?;
        self.lowest = lowest_of(served, &checkpoints, self.noted.len());
        let mut moved = false;
        for partition in 0..self.noted.len() {
            moved |= self.send(partition).await?;
        }
        if !moved {
            work.progress.state(match self.outboxes.held_up() {
                None => SlotState::Live,
                Some(by) => SlotState::Waiting { reason: by },
            });
        }
        Ok(moved)
    }

    /// Sends everything up to the lowest checkpoint of the slots: later causes may still bring
    /// forth events in one of them.
    async fn send(&mut self, partition: usize) -> Result<bool, WorkError> {
        let lowest = self.lowest[partition];
        if lowest <= self.passed[partition] {
            return Ok(false);
        }
        let work = self.work;
        let number = Partition(partition as u32);
        let log = work.context.log();
        let views = &*work.context.views;
        let mut moved = false;
        let mut numbers = Numbers::default();
        self.outboxes.look_again();
        loop {
            let span = (self.passed[partition], lowest);
            let limit = &work.batch_limit;
            let batch = self.outboxes.next(views, number, span, limit).await?;
            let Some(last) = batch.entries.last().map(|last| last.order.position) else {
                self.passed[partition] = lowest;
                self.note_soon();
                break;
            };
            let began = Instant::now();
            let count = batch.entries.len() as u64;
            let mut ready = Vec::new();
            for entry in batch.entries {
                let order = entry.order;
                let cause = Position::new(order.position);
                let is_skipped = self.skipped.contains(&(number, cause));
                match entry.what {
                    Leaving::Append(to, event) => {
                        let event =
                            numbers.named((&*work.pipeline.view, number, cause), &to, event);
                        if !is_skipped {
                            ready.push(Ready { order, to, event });
                        }
                    }
                    Leaving::Publish(_, _) if is_skipped => {}
                    Leaving::Publish(outlet, record) => {
                        self.outlets.add(outlet, (number, order), record)?;
                    }
                }
            }
            let appended = append_all(&**log, (&*work.pipeline.view, number), &ready).await;
            let refused = work.delivered(appended)?;
            let to = if batch.is_last {
                lowest
            } else {
                // Others of the same cause may follow.
                Position::new(last).minus(1)
            };
            if self.outlets.have_records() {
                let up_to = UpTo {
                    log: log.id(),
                    partition: number,
                    position: to,
                    event: event_at(&**log, number, to).await?,
                };
                loop {
                    let taken = self.outlets.take(up_to, !batch.is_last).await;
                    let Some(refused) = work.delivered(taken)? else {
                        break;
                    };
                    self.keep_dead(number, refused).await?;
                }
            }
            work.batch_limit.committed();
            self.dead
                .extend(refused::rows(&**log, number, refused).await?);
            if to > self.noted[partition] {
                let taken = CommittedStep {
                    events: count,
                    took: began.elapsed(),
                    ..CommittedStep::default()
                };
                self.note(number, to, taken).await?;
            }
            moved = true;
            if batch.is_last {
                break;
            }
        }
        Ok(moved)
    }

    /// Stores what an outlet refused as dead records before the outlet's mark passes it: the next
    /// owner of the lease continues after the mark and does not see it.
    async fn keep_dead(&mut self, partition: Partition, refused: Refused) -> Result<(), WorkError> {
        let log = self.work.context.log();
        self.dead
            .extend(refused::rows(&**log, partition, vec![refused]).await?);
        let noted = self.noted[partition.0 as usize];
        self.commit(partition, noted).await
    }

    /// That nothing came of a stretch of the log is noted soon: who takes over is not to decide
    /// otherwise about it.
    fn note_soon(&mut self) {
        if self.note_at.is_none() {
            self.note_at = Some(tokio::time::Instant::now() + NOTE_AFTER);
        }
    }

    async fn note_passed(&mut self) -> Result<(), WorkError> {
        self.note_at = None;
        for partition in 0..self.noted.len() {
            let passed = self.passed[partition];
            if passed > self.noted[partition] {
                let nothing = CommittedStep::default();
                self.note(Partition(partition as u32), passed, nothing)
                    .await?;
            }
        }
        Ok(())
    }

    async fn note(
        &mut self,
        partition: Partition,
        to: Position,
        taken: CommittedStep,
    ) -> Result<(), WorkError> {
        let work = self.work;
        self.commit(partition, to).await?;
        let passed = &mut self.passed[partition.0 as usize];
        *passed = to.max(*passed);
        work.progress.settled_to(partition, to, taken);
        work.workers
            .publish_step(work.generation.id, partition, to, None);
        work.link.has_sent(partition, to);
        Ok(())
    }

    /// Notes how far was sent, with the records that are dead since.
    async fn commit(&mut self, partition: Partition, to: Position) -> Result<(), WorkError> {
        let work = self.work;
        let noted = &mut self.noted[partition.0 as usize];
        let checkpoint = Checkpoint {
            position: to,
            event: event_at(&**work.context.log(), partition, to).await?,
            ..Checkpoint::start(work.number, partition)
        };
        let mut commit = work.view_commit(self.held.lease(), *noted, checkpoint);
        commit.rows = std::mem::take(&mut self.dead);
        work.context.views.commit_view(commit).await?;
        *noted = to;
        Ok(())
    }
}

/// By partition, up to where every slot has come.
fn lowest_of(served: &Generation, all: &[Checkpoint], partitions: usize) -> Vec<Position> {
    let mut reached: BTreeMap<(Partition, u16), Position> = BTreeMap::new();
    for of in all {
        reached.insert((of.partition, of.slot), of.position);
    }
    let lowest = |partition: u32| {
        let reads = |slot: &u16| served.spec.reads(*slot, Partition(partition));
        let slots = (0..served.spec.slots).filter(reads);
        let each = slots.map(|slot| reached.get(&(Partition(partition), slot)));
        let each = each.map(|position| position.copied().unwrap_or(Position::START));
        each.min().unwrap_or(Position::START)
    };
    (0..partitions as u32).map(lowest).collect()
}

/// Counts the events of a cause, stream by stream: they are named by that.
#[derive(Default)]
struct Numbers {
    cause: Position,
    of: HashMap<StreamId, u32>,
}

impl Numbers {
    /// The event with its id.
    fn named(
        &mut self,
        (pipeline, partition, cause): (&str, Partition, Position),
        to: &StreamId,
        event: NewEvent,
    ) -> NewEvent {
        if self.cause != cause {
            self.cause = cause;
            self.of.clear();
        }
        let number = self.of.entry(to.clone()).or_insert(0);
        let named = format!("{pipeline}/{partition}/{cause}");
        let id = EventId::caused_by(to, &named, *number);
        *number += 1;
        event.id(id)
    }
}
