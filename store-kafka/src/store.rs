//! A store in a topic: **for teams that must keep Kafka as the one durable place; everybody else
//! takes PostgreSQL and the relay**.
//!
//! An append costs a transaction of Kafka (some 60 ms with three replicas, where PostgreSQL takes
//! 2), names one stream, and is taken by the one process that owns the stream's partition. There
//! is no total order: each partition has one of its own.
//!
//! Every process follows every partition into a local copy, one SQLite file for each. Reads are
//! answered from it, and appends are decided on it by the owner, which records them in the topic
//! before it commits them to the copy. What was lost of the copy is read again.

mod copy;
mod first;
mod follower;
mod layout;
mod note;
mod options;
mod owners;
mod partition;
mod record;
mod state;
mod task;
mod writer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    Append, AppendError, Appended, ChangeStream, EventId, EventStore, Found, Head, Hint, Limits,
    Log, LogId, LogPage, Partition, Position, ReadLog, ReadStream, Store, StoreError, StreamId,
    StreamPage, StreamState,
};
use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

pub use self::options::{Options, Owns};

use self::copy::{Copy, Folder};
use self::follower::Source;
use self::layout::Identity;
use self::owners::Owners;
use self::partition::PartitionHandle;
use self::state::{Role, State};
use self::task::{Owner, Task};
use crate::error::{invalid, unavailable};
use crate::kafka::Kafka;

/// How long a group waits for a member that was killed, where no setting says otherwise.
const SESSION: Duration = Duration::from_secs(45);

/// What opening may take beside waiting for the group.
const OPEN: Duration = Duration::from_secs(30);

/// Bytes of one payload: what is left of a record for names, tags and metadata.
const PAYLOAD_BYTES_MAX: usize = 3 << 20;

/// Bytes of one append.
const APPEND_BYTES_MAX: usize = 16 << 20;

/// How long a follower of the log sleeps without a hint.
const HINT: Duration = Duration::from_secs(3_600);

/// A store whose events are in a topic of Kafka, with a copy of them in local files.
///
/// It needs a Tokio runtime. When the last handle is dropped it gives up its partitions and closes
/// its files.
///
/// ```no_run
/// use annals_core::{Append, AppendError, EventStore, NewEvent, StreamId};
/// use annals_kafka::KafkaStore;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = KafkaStore::open("kafka://127.0.0.1:9092/bank?local=./bank").await?;
/// let event = NewEvent::json("account.opened", br#"{"owner":"Ada"}"#.as_slice());
/// match store.append(Append::new(StreamId::new("account-ada")?, [event])).await {
///     Err(AppendError::NotOwner { owner }) => println!("send it to {owner:?}"),
///     appended => println!("{}", appended?.last().position),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct KafkaStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    log: LogId,
    limits: Limits,
    partitions: Vec<PartitionHandle>,
    moved: watch::Sender<u64>,
    tasks: Vec<AbortHandle>,
    /// It keeps the admin client.
    _kafka: Kafka,
}

impl Drop for Shared {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl KafkaStore {
    /// Opens the store at `kafka://[USER:PASSWORD@]HOST[:PORT][,HOST…]/NAME?local=DIR`, and makes
    /// its topic when it is missing. More after the `?`: what a [`Kafka`] connection takes, and the
    /// other [`Options`].
    ///
    /// It returns when this process owns what it is asked to own, and has read what was in the
    /// topic.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](annals_core::Failure) for a URL that names no store, for a topic that
    /// forgets or may lose records (with the setting that says so), and for a local copy that
    /// another process uses. [`Failure::Corrupt`](annals_core::Failure) for a copy of something
    /// else than the topic, and for records in it that Annals did not write.
    /// [`Failure::Unavailable`](annals_core::Failure) when the brokers do not answer.
    pub async fn open(url: &str) -> Result<KafkaStore, StoreError> {
        KafkaStore::open_with(url.parse()?).await
    }

    /// Opens the store as the options say.
    ///
    /// # Errors
    ///
    /// As [`KafkaStore::open`].
    pub async fn open_with(options: Options) -> Result<KafkaStore, StoreError> {
        let settings = options.settings.iter();
        let settings = settings.map(|(key, value)| (key.as_str(), value.as_str()));
        let kafka = Kafka::connect_with(&options.brokers, settings).await?;
        let count = layout::open(&kafka, &options).await?;
        let identity = Identity {
            cluster: kafka.cluster().to_owned(),
            name: options.name.clone(),
            partitions: count,
        };
        let folder = Folder::lock(&options.local).await?;
        let mut limits = Limits::default();
        limits.payload_bytes_max = PAYLOAD_BYTES_MAX;
        limits.append_bytes_max = APPEND_BYTES_MAX;
        let address = options.advertise.clone().unwrap_or_else(this_process);
        let source = |number: u32| {
            let accepted = options.accepted.iter();
            let accepted = accepted.filter(|(partition, _)| *partition == number);
            Source {
                config: kafka.config().clone(),
                topic: options.name.clone(),
                partition: number,
                partitions: count,
                folder: options.local.clone(),
                accepted: accepted.map(|(_, offset)| *offset).collect(),
            }
        };
        let mut copies = Vec::new();
        for number in 0..count {
            let clock = Arc::clone(&options.clock);
            let folder = Arc::clone(&folder);
            let copy = Copy::open(&options.local, number, folder, &identity, limits, clock).await?;
            copies.push((number, copy));
        }
        if let Some((number, copy)) = copies.first() {
            first::check(&source(*number), copy).await?;
        }
        let mut checks = JoinSet::new();
        for (number, copy) in &copies {
            checks.spawn(first::check_end(source(*number), Arc::clone(copy)));
        }
        while let Some(checked) = checks.join_next().await {
            checked.map_err(|error| unavailable("a copy was not checked").because(error))??;
        }
        // From here on it takes partitions from the processes that own them.
        let owners = Owners::join(&kafka, options.owns, &options.name)?;
        let is_assigned = match options.owns {
            Owns::Shared => None,
            Owns::All => Some(true),
            Owns::None => Some(false),
        };
        let moved = watch::Sender::new(0);
        let mut partitions = Vec::new();
        let mut tasks = Vec::new();
        for (number, copy) in copies {
            let state = Arc::new(watch::Sender::new(State::new(is_assigned)));
            let task = Task {
                kafka: kafka.clone(),
                is_shared: matches!(options.owns, Owns::Shared),
                source: source(number),
                copy: Arc::clone(&copy),
                state: Arc::clone(&state),
                owner: Owner {
                    address: address.clone(),
                    instance: EventId::random().to_string(),
                },
            };
            tasks.push(tokio::spawn(task.run()).abort_handle());
            let hint = copy.store()?.hint();
            tasks.push(tokio::spawn(pass_on(hint, moved.clone())).abort_handle());
            partitions.push(PartitionHandle {
                number: Partition(number),
                copy,
                state,
            });
        }
        let states = partitions.iter().map(|of| Arc::clone(&of.state)).collect();
        tasks.push(tokio::spawn(owners.run(states)).abort_handle());
        let store = KafkaStore {
            shared: Arc::new(Shared {
                log: identity.log(),
                limits,
                partitions,
                moved,
                tasks,
                _kafka: kafka,
            }),
        };
        store.ready(&options).await?;
        Ok(store)
    }

    /// Who owns the partition of a stream, as its last owner said; nothing while that is not known.
    ///
    /// ```no_run
    /// # fn example(store: &annals_kafka::KafkaStore) -> Result<(), annals_core::Invalid> {
    /// let stream = annals_core::StreamId::new("account-7")?;
    /// println!("send it to {:?}", store.owner_of(&stream));
    /// # Ok(())
    /// # }
    /// ```
    pub fn owner_of(&self, stream: &StreamId) -> Option<String> {
        let state = self.of(stream).ok()?.state.borrow();
        state.owner.clone()
    }

    /// Whether this process owns a partition now.
    ///
    /// ```no_run
    /// # fn example(store: &annals_kafka::KafkaStore) {
    /// let owns = store.owns(annals_core::Partition(0));
    /// # }
    /// ```
    pub fn owns(&self, partition: Partition) -> bool {
        let owned = self.partition(partition);
        owned.is_ok_and(|owned| owned.state.borrow().role == Role::Owning)
    }

    /// Waits until every partition is owned, or was read as far as it went.
    async fn ready(&self, options: &Options) -> Result<(), StoreError> {
        let began = Instant::now();
        let session = session(options);
        // A member that was killed, and one that was killed while it waited for that one.
        let within = session * 2 + OPEN;
        for partition in &self.shared.partitions {
            let mut states = partition.state.subscribe();
            let is_ready = |state: &State| {
                state.is_settled
                    && match state.is_assigned {
                        // Another process may have taken it since.
                        true => state.has_owned,
                        false => state.has_caught_up,
                    }
            };
            loop {
                let state = states.borrow_and_update().clone();
                if is_ready(&state) {
                    break;
                }
                if let Some(error) = state.refusal() {
                    return Err(error);
                }
                let left = within.saturating_sub(began.elapsed());
                match tokio::time::timeout(left, states.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(unavailable("a partition's task ended")),
                    Err(_) => {
                        let why = not_opened(&state, &options.name, session);
                        return Err(unavailable(format!(
                            "partition {} was not opened in {} s: {why}",
                            partition.number,
                            within.as_secs(),
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    fn partition(&self, partition: Partition) -> Result<&PartitionHandle, StoreError> {
        let partitions = &self.shared.partitions;
        partitions.get(partition.0 as usize).ok_or_else(|| {
            let count = partitions.len();
            invalid(format!(
                "there is no partition {partition}, the log has {count}"
            ))
        })
    }

    fn of(&self, stream: &StreamId) -> Result<&PartitionHandle, StoreError> {
        self.partition(self.partition_of(stream))
    }
}

/// How long the group of the owners waits for a member that was killed.
fn session(options: &Options) -> Duration {
    let mut settings = options.settings.iter().rev();
    let found = settings.find(|(key, _)| key == "session.timeout.ms");
    let found = found.and_then(|(_, value)| value.parse().ok());
    found.map_or(SESSION, Duration::from_millis)
}

/// Why a partition is not opened.
fn not_opened(state: &State, topic: &str, session: Duration) -> String {
    if let Some(why) = &state.last_error {
        return why.clone();
    }
    if state.is_settled {
        return "what the topic holds is still being read; what was read is kept, open the store \
                again"
            .to_owned();
    }
    format!(
        "the group `{topic}.owners` has not assigned it. It waits {} s for each member that was \
         killed and for those that do not answer; open the store again, and see who is a member \
         with `kafka-consumer-groups.sh --describe --members --group {topic}.owners`",
        session.as_secs()
    )
}

/// What a process is called that does not say.
fn this_process() -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let machine = machine.map_or_else(|_| "process".to_owned(), |name| name.trim().to_owned());
    format!("{machine}:{}", std::process::id())
}

/// Passes the hints of a partition on to those who follow the whole log.
async fn pass_on(mut hint: Hint, moved: watch::Sender<u64>) {
    loop {
        hint.wait(HINT).await;
        moved.send_modify(|count| *count = count.wrapping_add(1));
    }
}

#[async_trait]
impl EventStore for KafkaStore {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        append.check(&self.shared.limits)?;
        append.check_carries_no_rows()?;
        let partition = self.of(append.check_one_stream()?)?;
        partition.append(&append).await
    }

    async fn read_stream(&self, read: ReadStream) -> Result<StreamPage, StoreError> {
        let partition = self.of(&read.stream)?;
        let copy = &partition.copy;
        let mut page = copy.told(copy.store()?.read_stream(read).await)?;
        page.events = partition.recorded(page.events);
        Ok(page)
    }

    async fn find(
        &self,
        partition: Partition,
        ids: &[EventId],
    ) -> Result<Vec<Option<Found>>, StoreError> {
        let partition = self.partition(partition)?;
        let copy = &partition.copy;
        let found = copy.told(copy.store()?.find(Partition(0), ids).await)?;
        let found = found.into_iter();
        Ok(found.map(|found| Some(partition.found(found?))).collect())
    }

    async fn stream_state(&self, stream: &StreamId) -> Result<StreamState, StoreError> {
        let copy = &self.of(stream)?.copy;
        copy.told(copy.store()?.stream_state(stream).await)
    }

    async fn change_stream(&self, change: ChangeStream) -> Result<StreamState, AppendError> {
        self.of(&change.stream)?.change(&change).await
    }

    fn limits(&self) -> Limits {
        self.shared.limits
    }
}

#[async_trait]
impl Log for KafkaStore {
    fn id(&self) -> LogId {
        self.shared.log
    }

    fn partitions(&self) -> u32 {
        self.shared.partitions.len() as u32
    }

    fn partition_of(&self, stream: &StreamId) -> Partition {
        let key = stream.as_str().as_bytes();
        Partition(crate::murmur2_partition(key, self.partitions()))
    }

    async fn read(&self, mut read: ReadLog) -> Result<LogPage, StoreError> {
        let partition = self.partition(read.partition)?;
        read.partition = Partition(0);
        let mut page = partition.copy.read(read).await?;
        page.events = partition.recorded(page.events);
        Ok(page)
    }

    async fn head(&self, partition: Partition) -> Result<Head, StoreError> {
        let copy = &self.partition(partition)?.copy;
        copy.told(copy.store()?.head(Partition(0)).await)
    }

    async fn position_at(
        &self,
        partition: Partition,
        moment: DateTime<Utc>,
    ) -> Result<Position, StoreError> {
        let copy = &self.partition(partition)?.copy;
        copy.told(copy.store()?.position_at(Partition(0), moment).await)
    }

    fn hint(&self) -> Hint {
        Hint::new(self.shared.moved.subscribe())
    }

    fn stalled(&self, partition: Partition) -> Option<String> {
        let state = self.partition(partition).ok()?.state.borrow();
        state.last_error.clone()
    }
}

impl Store for KafkaStore {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_waits_for_members_that_were_killed_and_says_so() {
        let options = Options::new("kafka://a", "bank", "./bank");
        assert_eq!(session(&options), Duration::from_secs(45));
        let options = options.setting("session.timeout.ms", "6000");
        let session = session(&options);
        assert_eq!(session, Duration::from_secs(6));
        let mut state = State::new(None);
        let said = not_opened(&state, "bank", session);
        assert!(
            said.contains("waits 6 s for each member that was killed"),
            "{said}"
        );
        state.is_settled = true;
        let said = not_opened(&state, "bank", session);
        assert!(said.contains("is still being read"), "{said}");
        state.last_error = Some("no broker".into());
        assert_eq!(not_opened(&state, "bank", session), "no broker");
    }
}
