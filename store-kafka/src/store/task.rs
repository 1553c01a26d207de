//! The life of a partition in this process: it follows, or opens the partition and owns it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{AppendError, Backoff, Partition, StoreError};
use annals_core::{Failure, with_causes};
use annals_sqlite::{ReplicaEntry, Upstream as _};

use super::copy::Copy;
use super::follower::{Follower, Page, Source, uncommitted_end};
use super::note::OwnerNote;
use super::state::{Role, Shared};
use super::writer::Writer;
use crate::client::{ClientThread, PROPAGATION};
use crate::error::unavailable;
use crate::kafka::Kafka;

/// Waits after something failed, and after this process was fenced by another one.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));

/// How often a process that owns a partition looks whether another one has written there: it hears
/// of that by its next append, and where none comes it would read no more.
const LOOK: Duration = Duration::from_secs(5);

/// How long reading up to the end may stand still after a fence: longer than a transaction of
/// another process may be open.
const STABLE: Duration = Duration::from_secs(30);

/// How long reading before a fence may stand still.
const IN_THE_WAY: Duration = Duration::from_secs(3);

/// What a partition's task needs.
pub(super) struct Task {
    pub(super) kafka: Kafka,
    /// Whether a group decides who owns the partition.
    pub(super) is_shared: bool,
    pub(super) source: Source,
    pub(super) copy: Arc<Copy>,
    pub(super) state: Shared,
    /// What this process is called in the log, and to those who ask for the owner.
    pub(super) owner: Owner,
}

/// Who writes.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) address: String,
    /// Distinguishes two that have the same address, and the partitions of one.
    pub(super) instance: String,
}

impl Owner {
    /// What it says in a topic of so many partitions.
    fn note(&self, partitions: u32) -> String {
        let note = OwnerNote {
            instance: &self.instance,
            partitions: Some(partitions),
            address: &self.address,
        };
        note.to_string()
    }

    /// Whether this process has written a note.
    fn has_written(&self, note: &str) -> bool {
        OwnerNote::read(note).instance == self.instance
    }

    /// Who owns a partition by its last note. After a note of this process comes that of the
    /// process that has it now.
    fn other_in(&self, note: &str) -> Option<String> {
        (!self.has_written(note)).then(|| OwnerNote::read(note).address.to_owned())
    }
}

type Reading = ClientThread<Result<Follower, StoreError>>;

impl Task {
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        let mut backoff = AGAIN;
        loop {
            let ran = if self.state.borrow().is_to_own() {
                self.own(&mut backoff).await
            } else {
                self.follow(None).await
            };
            if let Err(error) = ran {
                let why = with_causes(&error).to_string();
                tracing::warn!(
                    topic = self.source.topic,
                    partition = self.source.partition,
                    why
                );
                let failure = error.failure();
                let refused = (failure != Failure::Unavailable).then_some(failure);
                self.state.send_modify(|state| {
                    state.refused = refused;
                    state.last_error = Some(why);
                    state.role = Role::Following;
                });
                // What it holds on to is in the topic or in the file; it may be mended.
                let mut states = self.state.subscribe();
                states.mark_unchanged();
                let _ = tokio::time::timeout(backoff.next_wait(), async {
                    let was = self.state.borrow().is_to_own();
                    let _ = states.wait_for(|state| state.is_to_own() != was).await;
                })
                .await;
            }
        }
    }

    /// Opens the partition and owns it until another process does, or the group assigns it to one.
    async fn own(&self, backoff: &mut Backoff) -> Result<(), StoreError> {
        self.state.send_modify(|state| {
            state.role = Role::Opening;
            state.is_taking_back = false;
            // Of a writer before.
            state.was_fenced = false;
        });
        let opened = Instant::now();
        // What is refused interrupts no owner, and what is there by now is read before the fence.
        let read = self.read_before_fence().await?;
        if !self.state.borrow().is_to_own() {
            self.state.send_modify(|state| state.role = Role::Following);
            return Ok(());
        }
        let writer = self.open(read).await?;
        // Before the writer has work: it may end with the first of it, and only one that owns is
        // missed then.
        self.state.send_modify(|state| {
            state.role = Role::Owning;
            state.settled += 1;
            state.has_caught_up = true;
            state.has_owned = true;
            state.last_error = None;
        });
        self.copy
            .store()?
            .own(Some(Box::new(writer)))
            .await
            .map_err(AppendError::into_store_error)?;
        tracing::debug!(
            topic = self.source.topic,
            partition = self.source.partition,
            took = ?opened.elapsed(),
            "a partition is owned"
        );
        let owned = Instant::now();
        let mut states = self.state.subscribe();
        let given_up = states.wait_for(|state| state.role != Role::Owning || !state.is_assigned);
        let (was_fenced, is_standby) = tokio::select! {
            given_up = given_up => (given_up.is_ok_and(|state| state.was_fenced), false),
            elsewhere = self.goes_on_elsewhere() => {
                elsewhere?;
                (true, !self.is_shared)
            }
        };
        self.state.send_modify(|state| {
            state.was_fenced = false;
            // Two that are both asked to own it would take it from each other for nothing.
            state.is_standby = is_standby && state.is_assigned;
            // The process that has it now says so.
            state.is_owned_by(None);
            state.role = match state.is_assigned && !was_fenced {
                true => Role::Opening,
                false => Role::Following,
            };
        });
        // What was queued before is still written.
        let left = self.copy.store()?.own(None).await;
        left.map_err(AppendError::into_store_error)?;
        if owned.elapsed() > Duration::from_secs(60) {
            backoff.reset();
        }
        if is_standby {
            let Source {
                topic, partition, ..
            } = &self.source;
            tracing::info!(
                topic,
                partition,
                "another process has taken a partition over"
            );
            return self.follow(None).await;
        }
        if was_fenced {
            // Another process has it now. Two that are both asked to own it take turns.
            let wait = backoff.next_wait();
            let jitter = wait.mul_f64(f64::from(self.source.partition % 7) / 14.0);
            return self.follow(Some(Instant::now() + wait + jitter)).await;
        }
        Ok(())
    }

    /// Waits until the partition goes on after what this process has written.
    ///
    /// # Errors
    ///
    /// When the copy was closed: nothing more is appended here.
    async fn goes_on_elsewhere(&self) -> Result<(), StoreError> {
        let Source {
            topic, partition, ..
        } = &self.source;
        let mut before = None;
        loop {
            tokio::time::sleep(LOOK).await;
            // What does not answer now is asked again.
            let Ok(bounds) = self.kafka.bounds(topic, Partition(*partition)).await else {
                continue;
            };
            let place = match self.copy.replica_place().await {
                Ok(place) => place,
                Err(error) if error.failure() == Failure::Closed => return Err(error),
                Err(_) => continue,
            };
            // One marker ends what was written last. An append that is under way may have been
            // committed there, and not yet here: the next time it is.
            let written = place.cursor.cast_signed();
            let is_past = bounds.high > written + 1;
            if is_past && before == Some(written) {
                return Ok(());
            }
            before = is_past.then_some(written);
        }
    }

    /// A consumer that has read what was committed when it began, from where the copy ends, and how
    /// far it has come; none where that cannot be done now. A transaction that is in the way is for
    /// the fence to end.
    async fn read_before_fence(&self) -> Result<Option<(Reading, i64)>, StoreError> {
        let reading = self.reading().await?;
        let end = match stable_end(&reading).await {
            Ok(0) => return Ok(Some((reading, 0))),
            Ok(end) => end,
            // The fence waits longer for brokers that are away.
            Err(error) if error.failure() == Failure::Unavailable => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut moved = Instant::now();
        let mut next = page(&reading).await?;
        loop {
            let reached = next.reached;
            if reached >= end || moved.elapsed() > IN_THE_WAY {
                self.apply(next).await?;
                return Ok(Some((reading, reached)));
            }
            // The next page is read while this one is written.
            let (applied, read) = tokio::join!(self.apply(next), page(&reading));
            applied?;
            next = read?;
            if next.reached > reached {
                moved = Instant::now();
            }
            if !self.state.borrow().is_to_own() {
                self.apply(next).await?;
                return Ok(None);
            }
        }
    }

    /// Fences, and goes on reading afterwards: an earlier owner could still commit in between. Then
    /// it says in the log who writes now.
    async fn open(&self, read: Option<(Reading, i64)>) -> Result<Writer, StoreError> {
        let source = &self.source;
        let fence = ClientThread::start("kafka-store-fence", || ())?;
        let (config, topic) = (source.config.clone(), source.topic.clone());
        let (partition, state) = (source.partition, Arc::clone(&self.state));
        let of_end = source.clone();
        let note = ReplicaEntry::Note(self.owner.note(source.partitions));
        let of_writer = note.clone();
        let began = Instant::now();
        let fenced = fence.call(move |()| {
            let mut writer = Writer::fence(&config, &topic, partition, of_writer, state)?;
            writer.settle(&config)?;
            Ok::<_, StoreError>((writer, uncommitted_end(&of_end)?))
        });
        let (mut writer, end) = fenced.await??;
        let (reading, reached) = match read {
            Some(read) if began.elapsed() < PROPAGATION => read,
            // What it heard from brokers that were away meanwhile may not be so any more.
            _ => (self.reading().await?, -1),
        };
        if reached < end {
            let mut moved = Instant::now();
            let mut next = page(&reading).await?;
            loop {
                let reached = next.reached;
                if reached >= end {
                    self.apply(next).await?;
                    break;
                }
                // The next page is read while this one is written.
                let (applied, read) = tokio::join!(self.apply(next), page(&reading));
                applied?;
                next = read?;
                if next.reached > reached {
                    moved = Instant::now();
                }
                if moved.elapsed() > STABLE {
                    return Err(unavailable(format!(
                        "partition {partition} of `{}` ends at {end} and can be read up to \
                         {reached}: a transaction there is open that this process did not begin. \
                         Stop any other program that writes there. If none does, let this user \
                         read `__transaction_state`, or end it with `kafka-transactions.sh \
                         --bootstrap-server … abort --topic {} --partition {partition} \
                         --start-offset {reached}`",
                        source.topic, source.topic
                    )));
                }
            }
        }
        writer.begins_at(end);
        let written = fence.call(move |()| {
            let entries = [note];
            let cursor = writer.record(&entries)?;
            Ok::<_, StoreError>((writer, entries, cursor))
        });
        let (writer, entries, cursor) = written.await??;
        self.copy.apply(entries.into(), cursor).await?;
        let address = self.owner.address.clone();
        self.state
            .send_modify(|state| state.is_owned_by(Some(address)));
        Ok(writer)
    }

    /// Follows until it is to be owned, or until a moment.
    async fn follow(&self, until: Option<Instant>) -> Result<(), StoreError> {
        let end = self.committed_end().await?;
        let reading = self.reading().await?;
        let mut next = page(&reading).await?;
        loop {
            let applies = async {
                let reached = next.reached;
                self.apply(next).await?;
                if reached >= end && !self.state.borrow().has_caught_up {
                    self.state.send_modify(|state| state.has_caught_up = true);
                }
                self.state
                    .send_if_modified(|state| state.last_error.take().is_some());
                Ok::<_, StoreError>(())
            };
            // The next page is read while this one is written.
            let (applied, read) = tokio::join!(applies, page(&reading));
            applied?;
            next = read?;
            let is_over = match until {
                Some(until) => Instant::now() >= until || !self.state.borrow().is_assigned,
                None => self.state.borrow().is_to_own(),
            };
            if is_over {
                return Ok(());
            }
        }
    }

    async fn committed_end(&self) -> Result<i64, StoreError> {
        let looks = ClientThread::start("kafka-store-end", || ())?;
        let source = self.source.clone();
        looks.call(move |()| uncommitted_end(&source)).await?
    }

    /// A consumer that begins where the copy ends.
    async fn reading(&self) -> Result<Reading, StoreError> {
        let copied = self.copy.end(&self.source).await?;
        let owner = copied.note.as_deref();
        let owner = owner.and_then(|note| self.owner.other_in(note));
        self.state.send_modify(|state| state.owner = owner);
        let source = self.source.clone();
        let name = format!("kafka-store-{}", source.partition);
        ClientThread::start(name, move || Follower::open(source, copied))
    }

    async fn apply(&self, page: Page) -> Result<(), StoreError> {
        if let Some(change) = page.known {
            self.copy.check_change(&self.source, &change).await?;
        }
        if page.entries.is_empty() {
            return Ok(());
        }
        let mut latest = page.entries.iter().rev();
        let last = latest.find_map(|entry| match entry {
            ReplicaEntry::Note(note) => Some(note.clone()),
            _ => None,
        });
        if let Some(note) = &last {
            let owner = self.owner.other_in(note);
            // Before anybody sees what it wrote.
            self.state.send_modify(|state| state.is_owned_by(owner));
        }
        self.copy.apply(page.entries, page.cursor).await?;
        if last.is_some() {
            // The process that wrote it had fenced before: what was open then is decided.
            self.state.send_modify(|state| state.settled += 1);
        }
        Ok(())
    }
}

/// Where what was committed ended when the reading began.
async fn stable_end(reading: &Reading) -> Result<i64, StoreError> {
    let end = reading.call(|follower| match follower {
        Ok(follower) => Ok(follower.stable_end()),
        Err(error) => Err(again(error)),
    });
    end.await?
}

async fn page(reading: &Reading) -> Result<Page, StoreError> {
    let read = reading.call(|follower| match follower {
        Ok(follower) => follower.page(),
        Err(error) => Err(again(error)),
    });
    read.await?
}

/// The same error once more.
pub(super) fn again(error: &StoreError) -> StoreError {
    StoreError::new(error.failure(), with_causes(error).to_string())
}
