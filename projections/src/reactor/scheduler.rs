//! Which calls are made when: one after another for each key, several keys at once, and each event
//! settled on its own. Pure: it is given what was read and what came of calls, and says what is to
//! be called and what is to be written.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{DeadLetter, EventId, Partition, Position, RowChange};

use super::window::Window;

/// What is to be done about an event for one of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job<C> {
    /// Which of the partitions.
    pub(super) index: usize,
    pub(super) position: Position,
    pub(super) event: EventId,
    pub(super) key: String,
    pub(super) call: C,
}

/// An event that was read, with what is to be done about it for each of its keys.
#[derive(Clone, Debug)]
pub(super) struct Event<C> {
    pub(super) position: Position,
    pub(super) id: EventId,
    pub(super) recorded_at: DateTime<Utc>,
    /// Each key once; none when nothing is to be done.
    pub(super) calls: Vec<(String, C)>,
}

/// What came of a call.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Done(Vec<RowChange>),
    Failed { reason: String, attempts: u32 },
}

/// What is to be written of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Everything up to here is settled.
    pub(super) low: Position,
    /// And these after it.
    pub(super) above: Vec<Position>,
    pub(super) dead_letters: Vec<DeadLetter>,
    pub(super) rows: Vec<RowChange>,
}

/// One partition of the log.
struct PartitionState<C> {
    partition: Partition,
    window: Window,
    dirty: bool,
    // When events were recorded that are held.
    recorded: BTreeMap<Position, DateTime<Utc>>,
    settled_events: u64,
    rows: BTreeMap<String, RowChange>,
    // Dead letters that are written as soon as the checkpoint comes there.
    letters: BTreeMap<(Position, String), (DeadLetter, Job<C>)>,
}

/// The calls of a reactor, from the taking of the lease to its loss.
pub(super) struct Scheduler<C> {
    partitions: Vec<PartitionState<C>>,
    // Calls that wait for their turn, by key.
    lanes: HashMap<String, VecDeque<Job<C>>>,
    busy: HashSet<String>,
    // Keys whose first call waits for room.
    ready: VecDeque<String>,
    dead: HashSet<String>,
}

impl<C> Scheduler<C> {
    /// From these checkpoints on: everything is settled up to a position, and some events after
    /// it.
    pub(super) fn new(
        checkpoints: impl IntoIterator<Item = (Partition, Position, Vec<Position>)>,
        dead: HashSet<String>,
    ) -> Scheduler<C> {
        let state = |(partition, low, settled)| PartitionState {
            partition,
            window: Window::begin(low, settled),
            dirty: false,
            recorded: BTreeMap::new(),
            settled_events: 0,
            rows: BTreeMap::new(),
            letters: BTreeMap::new(),
        };
        Scheduler {
            partitions: checkpoints.into_iter().map(state).collect(),
            lanes: HashMap::new(),
            busy: HashSet::new(),
            ready: VecDeque::new(),
            dead,
        }
    }

    /// Events of a partition that are held: what bounds the memory.
    pub(super) fn held(&self, index: usize) -> usize {
        self.partitions[index].window.len()
    }

    /// Up to where a partition was read.
    pub(super) fn scanned(&self, index: usize) -> Position {
        self.partitions[index].window.scanned()
    }

    /// Everything up to here was read.
    pub(super) fn scanned_to(&mut self, index: usize, position: Position) {
        let state = &mut self.partitions[index];
        if position > state.window.scanned() {
            state.window.scanned_to(position);
            state.dirty = true;
        }
    }

    /// Whether nothing waits and nothing is being called.
    pub(super) fn is_idle(&self) -> bool {
        self.lanes.is_empty() && self.busy.is_empty()
    }

    pub(super) fn dead_keys(&self) -> usize {
        self.dead.len()
    }

    /// Takes in an event that was read. One that was settled before changes nothing.
    pub(super) fn take(&mut self, index: usize, event: Event<C>, now: DateTime<Utc>) {
        let state = &mut self.partitions[index];
        let position = event.position;
        state.recorded.insert(position, event.recorded_at);
        state.dirty = true;
        if !state.window.take(position, event.calls.len()) {
            return;
        }
        for (key, call) in event.calls {
            let job = Job {
                index,
                position,
                event: event.id,
                key,
                call,
            };
            if self.dead.contains(&job.key) {
                self.bury(job, None, 0, now);
            } else {
                self.queue(job);
            }
        }
    }

    fn queue(&mut self, job: Job<C>) {
        let key = job.key.clone();
        let lane = self.lanes.entry(key.clone()).or_default();
        lane.push_back(job);
        if lane.len() == 1 && !self.busy.contains(&key) {
            self.ready.push_back(key);
        }
    }

    /// Calls to be begun, as many as there is room for.
    pub(super) fn start(&mut self, room: usize) -> Vec<Job<C>> {
        let mut starting = Vec::new();
        while starting.len() < room {
            let Some(key) = self.ready.pop_front() else {
                break;
            };
            if let Some(job) = self.lanes.get_mut(&key).and_then(VecDeque::pop_front) {
                self.busy.insert(key);
                starting.push(job);
            }
        }
        starting
    }

    /// What was begun is settled before it ends: it is called at most once.
    pub(super) fn settle(&mut self, index: usize, position: Position, rows: Vec<RowChange>) {
        let state = &mut self.partitions[index];
        state.window.settle(position);
        state
            .rows
            .extend(rows.into_iter().map(|row| (row.key.clone(), row)));
        state.settled_events += 1;
        state.dirty = true;
    }

    /// A call has ended. One that failed makes its key a dead one, and its later events queue.
    pub(super) fn ended(&mut self, job: Job<C>, outcome: Outcome, now: DateTime<Utc>) {
        let key = job.key.clone();
        self.busy.remove(&key);
        match outcome {
            Outcome::Done(rows) => self.settle(job.index, job.position, rows),
            Outcome::Failed { reason, attempts } => {
                self.dead.insert(key.clone());
                self.bury(job, Some(reason), attempts, now);
                for job in self.lanes.remove(&key).unwrap_or_default() {
                    self.bury(job, None, 0, now);
                }
            }
        }
        self.next_of(key);
    }

    /// A call has ended that was settled before it was made.
    pub(super) fn ended_unrecorded(&mut self, key: String) {
        self.busy.remove(&key);
        self.next_of(key);
    }

    fn next_of(&mut self, key: String) {
        match self.lanes.get(&key).map(VecDeque::is_empty) {
            Some(false) => self.ready.push_back(key),
            Some(true) => _ = self.lanes.remove(&key),
            None => {}
        }
    }

    fn bury(&mut self, job: Job<C>, reason: Option<String>, attempts: u32, now: DateTime<Utc>) {
        let state = &mut self.partitions[job.index];
        let letter = DeadLetter {
            key: job.key.clone(),
            partition: state.partition,
            position: job.position,
            event: job.event,
            reason: reason.map(DeadLetter::recorded),
            attempts,
            dead_since: now,
        };
        state.window.settle(job.position);
        state.settled_events += 1;
        state.dirty = true;
        state
            .letters
            .insert((job.position, job.key.clone()), (letter, job));
    }

    /// No dead letter of this key is left: it goes on as the others do, with those of its events
    /// that were to become dead letters and are not written yet.
    pub(super) fn revive(&mut self, key: &str) {
        self.dead.remove(key);
        let mut jobs = Vec::new();
        for state in &mut self.partitions {
            let of_key: Vec<_> = state
                .letters
                .keys()
                .filter(|(_, of)| of == key)
                .cloned()
                .collect();
            for at in of_key {
                if let Some((_, job)) = state.letters.remove(&at) {
                    state.window.unsettle(job.position);
                    state.settled_events = state.settled_events.saturating_sub(1);
                    state.dirty = true;
                    jobs.push(job);
                }
            }
        }
        jobs.into_iter().for_each(|job| self.queue(job));
    }

    /// What is to be written of a partition; nothing when nothing moved.
    pub(super) fn settled(&mut self, index: usize) -> Option<Settled> {
        let state = &mut self.partitions[index];
        if !state.dirty {
            return None;
        }
        let low = state.window.low();
        let due = |(position, _): &(Position, String)| *position <= low;
        let dead_letters = state
            .letters
            .iter()
            .filter(|(at, _)| due(at))
            .map(|(_, (letter, _))| letter.clone())
            .collect();
        // A dead letter after the checkpoint is not written yet, so its event is not settled for
        // the next worker.
        let unwritten: HashSet<_> = state
            .letters
            .keys()
            .filter(|at| !due(at))
            .map(|(position, _)| *position)
            .collect();
        let above = state
            .window
            .settled_above()
            .filter(|position| !unwritten.contains(position))
            .collect();
        Some(Settled {
            low,
            above,
            dead_letters,
            rows: state.rows.values().cloned().collect(),
        })
    }

    /// It was written: how many events are settled by it.
    pub(super) fn written(&mut self, index: usize, settled: &Settled) -> u64 {
        let state = &mut self.partitions[index];
        state
            .letters
            .retain(|(position, _), _| *position > settled.low);
        state.rows.clear();
        state.dirty = false;
        state.recorded = state.recorded.split_off(&settled.low.next());
        std::mem::take(&mut state.settled_events)
    }

    /// When the first event after a position was recorded, of those that are held.
    pub(super) fn oldest_after(&self, index: usize, position: Position) -> Option<DateTime<Utc>> {
        self.partitions[index]
            .recorded
            .range(position.next()..)
            .next()
            .map(|(_, recorded_at)| *recorded_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scheduler of one partition, driven by lines: `1 a b` reads event 1 of the keys a and b,
    /// `start` begins all calls that can be, `done 1 a`, `failed 1 a` end one, `revive a`, and
    /// `write` shows what is written.
    fn run(dead: &[&str], lines: &[&str]) -> Vec<String> {
        let dead = dead.iter().map(|key| (*key).to_owned()).collect();
        let mut scheduler = Scheduler::<()>::new([(Partition(0), Position::START, vec![])], dead);
        let now = DateTime::default();
        let mut running: HashMap<(Position, String), Job<()>> = HashMap::new();
        let mut shown = Vec::new();
        for line in lines {
            let words: Vec<_> = line.split_whitespace().collect();
            match *words {
                ["start"] => {
                    let jobs = scheduler.start(10);
                    let texts: Vec<_> = jobs
                        .iter()
                        .map(|job| format!("{}{}", job.key, job.position))
                        .collect();
                    shown.push(format!("call {}", texts.join(" ")));
                    running.extend(
                        jobs.into_iter()
                            .map(|job| ((job.position, job.key.clone()), job)),
                    );
                }
                [ended @ ("done" | "failed"), position, key] => {
                    let at = (Position::new(position.parse().unwrap()), key.to_owned());
                    let job = running.remove(&at).expect("it is being called");
                    let outcome = match ended {
                        "done" => Outcome::Done(Vec::new()),
                        _ => Outcome::Failed {
                            reason: "refused".into(),
                            attempts: 1,
                        },
                    };
                    scheduler.ended(job, outcome, now);
                }
                ["revive", key] => scheduler.revive(key),
                ["write"] => {
                    let Some(settled) = scheduler.settled(0) else {
                        shown.push("nothing".into());
                        continue;
                    };
                    let above: Vec<_> = settled.above.iter().map(ToString::to_string).collect();
                    let letters: Vec<_> = settled
                        .dead_letters
                        .iter()
                        .map(|of| format!("{}{}", of.key, of.position))
                        .collect();
                    let above = above.join(" ");
                    let letters = letters.join(" ");
                    shown.push(format!("to {} [{above}] dead [{letters}]", settled.low));
                    scheduler.written(0, &settled);
                }
                [position, ref keys @ ..] => {
                    let position = Position::new(position.parse().unwrap());
                    let event = Event {
                        position,
                        id: EventId::random(),
                        recorded_at: now,
                        calls: keys.iter().map(|key| ((*key).to_owned(), ())).collect(),
                    };
                    scheduler.take(0, event, now);
                    scheduler.scanned_to(0, position);
                }
                [] => {}
            }
        }
        shown
    }

    #[track_caller]
    fn check(dead: &[&str], lines: &[&str], expected: &[&str]) {
        assert_eq!(run(dead, lines), expected);
    }

    #[test]
    fn one_keys_calls_are_serial_and_keys_concurrent() {
        check(
            &[],
            &[
                "1 a", "2 a", "3 b", "start", "done 3 b", "write", "start", "done 1 a", "start",
            ],
            &["call a1 b3", "to 0 [3] dead []", "call ", "call a2"],
        );
    }

    #[test]
    fn a_failure_makes_its_key_dead_and_others_go_on() {
        check(
            &[],
            &[
                "1 a",
                "2 a",
                "3 b",
                "start",
                "failed 1 a",
                "4 a",
                "done 3 b",
                "write",
            ],
            &["call a1 b3", "to 4 [] dead [a1 a2 a4]"],
        );
    }

    #[test]
    fn an_event_of_several_keys_is_settled_when_all_are() {
        check(
            &[],
            &["1 a b", "start", "done 1 a", "write", "done 1 b", "write"],
            &["call a1 b1", "to 0 [] dead []", "to 1 [] dead []"],
        );
    }

    #[test]
    fn an_event_of_no_key_is_settled_at_once() {
        check(
            &[],
            &["1", "write", "write"],
            &["to 1 [] dead []", "nothing"],
        );
    }

    #[test]
    fn a_dead_letter_after_the_checkpoint_is_not_written_yet() {
        check(
            &["a"],
            &["1 b", "2 a", "start", "write", "done 1 b", "write"],
            &["call b1", "to 0 [] dead []", "to 2 [] dead [a2]"],
        );
    }

    #[test]
    fn a_revived_key_goes_on_with_what_was_not_written() {
        check(
            &["a"],
            &[
                "1 b", "2 a", "start", "revive a", "start", "done 2 a", "done 1 b", "write",
            ],
            &["call b1", "call a2", "to 2 [] dead []"],
        );
    }
}
