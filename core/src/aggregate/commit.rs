//! What commands on one aggregate and decisions over several share: stamping events, appending
//! until the outcome is known, deduplicating requests, and what comes of it.

use std::fmt;

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};

use super::fold::LoadError;
use super::followers::{FollowerAt, listed};
use crate::annals::Annals;
use crate::append::{Append, AppendError, Appended, Placed, Violation};
use crate::contain::{Panicked, net};
use crate::error::{Invalid, StoreError, with_causes};
use crate::event::{EventId, Metadata, NewEvent};
use crate::position::{Partition, Position, Token};
use crate::read::ReadStream;
use crate::store::{Store, TaggedStore};
use crate::stream::{StreamId, Version};
use crate::stream_state::Status;
use crate::typed::EncodeError;

/// Why a command had no effect (or, for [`CommandError::Unknown`], why that is not known).
///
/// The text has the whole reason, causes included.
///
/// ```
/// use annals_core::CommandError;
///
/// let error = CommandError::Refused("the account would be overdrawn");
/// assert_eq!(error.to_string(), "the account would be overdrawn");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError<E> {
    /// The domain said no, looking at the real tail of what it decides on. The same command gets
    /// the same answer until something else happens.
    #[error("{0}")]
    Refused(E),
    /// `create` on an aggregate that exists.
    #[error("`{stream}` exists already")]
    AlreadyExists {
        /// Its stream.
        stream: StreamId,
    },
    /// `update` on an aggregate that does not exist.
    #[error("`{stream}` does not exist")]
    NotFound {
        /// Its stream.
        stream: StreamId,
    },
    /// The stream was tombstoned: nothing can be appended any more.
    #[error("`{stream}` was tombstoned")]
    Tombstoned {
        /// The stream.
        stream: StreamId,
    },
    /// It is not archived, because what follows the log has not read all that would be removed.
    #[error(
        "`{stream}` is not archived, because {} did not read it to its end; run what follows the \
         log, drop generations of older programs with `drop_others`, drop what no program has any \
         more with `drop_follower`, or archive with `archive_unread`",
        listed(followers)
    )]
    NotReadByAll {
        /// The stream.
        stream: StreamId,
        /// What has not read it, and how far each has come.
        followers: Vec<FollowerAt>,
    },
    /// The idempotency key was used for another request: the fingerprints differ.
    #[error("the idempotency key `{key}` was used for another request")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// Others won every attempt. The command is still valid.
    #[error("gave up after {attempts} attempts: each conflicted with another append")]
    Contended {
        /// How often it was decided.
        attempts: u32,
    },
    /// The connection was lost during the commit and did not come back in time. Running the command
    /// again with the same idempotency key tells; without a key, look at the state.
    #[error("the outcome of the command is unknown: {}", with_causes(.0))]
    Unknown(StoreError),
    /// The command can never succeed as written.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A decided event cannot be written.
    #[error("{}", with_causes(.0))]
    Encode(EncodeError),
    /// The state could not be read.
    #[error("{}", with_causes(.0))]
    Load(LoadError),
    /// The decision, or other code of the application, panicked: nothing was written.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The append was not accepted, for another reason than a conflict.
    #[error("{}", with_causes(.0))]
    Append(AppendError),
}

impl<E> From<EncodeError> for CommandError<E> {
    fn from(error: EncodeError) -> CommandError<E> {
        CommandError::Encode(error)
    }
}

impl<E> From<LoadError> for CommandError<E> {
    fn from(error: LoadError) -> CommandError<E> {
        match error {
            LoadError::Invalid(invalid) => CommandError::Invalid(invalid),
            LoadError::Panicked(panicked) => CommandError::Panicked(panicked),
            error => CommandError::Load(error),
        }
    }
}

impl<E> From<StoreError> for CommandError<E> {
    fn from(error: StoreError) -> CommandError<E> {
        CommandError::Load(LoadError::Store(error))
    }
}

/// What came of a command.
///
/// ```
/// # fn example(done: &annals_core::Committed) {
/// println!("{} events; wait for {}", done.events().len(), done.token());
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    events: Vec<Placed>,
    token: Token,
    repeated: bool,
}

impl Committed {
    /// Nothing was to be done: what was decided on is the result.
    pub(crate) fn nothing(store: &dyn Store, seen: &[(Partition, Position)]) -> Committed {
        let token = seen
            .iter()
            .fold(Token::new(store.id()), |token, (partition, position)| {
                token.with(*partition, *position)
            });
        Committed {
            events: Vec::new(),
            token,
            repeated: false,
        }
    }

    /// Where each event is; empty when the decision needed none.
    pub fn events(&self) -> &[Placed] {
        &self.events
    }

    /// The version of `stream` after the command, if it got an event.
    pub fn version_of(&self, stream: &StreamId) -> Option<Version> {
        self.events
            .iter()
            .rev()
            .find(|placed| placed.stream == *stream)
            .map(|placed| placed.version)
    }

    /// What a reader must have reached to see the effect.
    pub const fn token(&self) -> &Token {
        &self.token
    }

    /// Whether the request (by its idempotency key) had taken effect before: this is its first
    /// result, and nothing was written now.
    ///
    /// Also so when the answer to this very command was lost on the way and asked for again.
    pub const fn was_repeated(&self) -> bool {
        self.repeated
    }
}

impl From<&Committed> for Token {
    fn from(done: &Committed) -> Token {
        done.token.clone()
    }
}

impl fmt::Display for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.events {
            [] => f.write_str("nothing to do"),
            [only] => write!(f, "{} is at {}", only.stream, only.version),
            several => write!(f, "{} events up to {}", several.len(), self.token),
        }
    }
}

/// How a command wants its events stamped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stamp {
    pub(crate) idempotency_key: Option<String>,
    pub(crate) fingerprint: Option<String>,
    pub(crate) metadata: Metadata,
    pub(crate) occurred_at: Option<DateTime<Utc>>,
}

impl Stamp {
    /// Gives events their ids (derived from `scope` and the idempotency key, when there is one),
    /// their time and metadata.
    pub(crate) fn apply<'e>(
        &self,
        db: &Annals,
        scope: &StreamId,
        events: impl Iterator<Item = &'e mut NewEvent>,
    ) -> Result<(), Panicked> {
        let mut metadata = db.metadata_for(self.metadata.clone());
        if let Some(fingerprint) = &self.fingerprint {
            metadata = metadata.key(FINGERPRINT, fingerprint);
        }
        let occurred_at = match self.occurred_at {
            Some(time) => time,
            None => net(|| "the clock of the handle", || db.clock().now())?,
        };
        let mut correlation = metadata.correlation;
        for (index, event) in (0..).zip(events) {
            event.id = match &self.idempotency_key {
                Some(key) => EventId::derived(scope, key, index),
                None => net(|| "the source of ids of the handle", || db.ids().next())?,
            };
            event.occurred_at = crate::to_microseconds(occurred_at);
            event.metadata = metadata.clone();
            // A command that follows from nothing begins a conversation, which is known by its
            // first event.
            event.metadata.correlation = Some(*correlation.get_or_insert(*event.id.as_uuid()));
        }
        Ok(())
    }

    /// The result of this request, when it was done before.
    pub(crate) async fn done_before<E>(
        &self,
        store: &dyn Store,
        scope: &StreamId,
        partition: Partition,
    ) -> Result<Option<Committed>, CommandError<E>> {
        let Some(key) = &self.idempotency_key else {
            return Ok(None);
        };
        let first = store
            .find(partition, &[EventId::derived(scope, key, 0)])
            .await?;
        let Some(Some(first)) = first.into_iter().next() else {
            return Ok(None);
        };
        let ids: Vec<_> = (0..first.append_events)
            .map(|index| EventId::derived(scope, key, index))
            .collect();
        let places = store
            .find(partition, &ids)
            .await?
            .into_iter()
            .flatten()
            .map(|found| found.placed)
            .collect();
        let done = self.done(&Appended::new(store.id(), places, true));
        self.check_repeated(store, &done).await?;
        Ok(Some(done))
    }

    /// Refuses a repetition whose fingerprint is not that of the request which was done. What was
    /// archived since is taken for the same request.
    pub(crate) async fn check_repeated<E>(
        &self,
        store: &dyn Store,
        done: &Committed,
    ) -> Result<(), CommandError<E>> {
        let (Some(fingerprint), Some(first), true) =
            (&self.fingerprint, done.events.first(), done.repeated)
        else {
            return Ok(());
        };
        let read = ReadStream::of(first.stream.clone())
            .from(first.version)
            .to(first.version)
            .everything();
        let page = store.read_stream(read).await?;
        let kept = page
            .events
            .first()
            .and_then(|event| event.metadata.keys.get(FINGERPRINT));
        match kept {
            Some(kept) if kept != fingerprint => Err(CommandError::KeyReused {
                key: self.idempotency_key.clone().unwrap_or_default(),
            }),
            _ => Ok(()),
        }
    }

    /// What came of an append of events that were stamped so.
    pub(crate) fn done(&self, appended: &Appended) -> Committed {
        Committed {
            events: appended.events().to_vec(),
            token: appended.token().clone(),
            // Ids of one attempt are known only to that attempt: what was repeated then is the
            // question, not the command.
            repeated: appended.was_repeated() && self.idempotency_key.is_some(),
        }
    }

    /// What cannot be a request.
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        match self.idempotency_key.as_deref() {
            Some("") => Err(Invalid::new(
                "an idempotency key is empty: every request would be the same one",
            )),
            _ => Ok(()),
        }
    }
}

/// The key in the metadata under which the fingerprint of a request is kept.
const FINGERPRINT: &str = "annals.request";

/// What is said of the events of a command or a decision; how requests are deduplicated is
/// said by each in its own words.
macro_rules! stamped {
    ($(#[$deduplicated:meta])*) => {
        $(#[$deduplicated])*
        pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
            self.stamp.idempotency_key = Some(key.into());
            self
        }

        /// Compares what was asked under the idempotency key: the same key with another
        /// `request` (its bytes as they were sent, or what names it) is
        /// [`CommandError::KeyReused`](crate::CommandError::KeyReused). A digest of it is kept in
        /// the metadata of the events, and goes with them when they are archived: from then on
        /// whatever is asked under the key is taken for the same request.
        pub fn fingerprint(mut self, request: impl AsRef<[u8]>) -> Self {
            self.stamp.fingerprint = Some($crate::aggregate::commit::fingerprint(request.as_ref()));
            self
        }

        /// What the events carry beside their content; what is not said here comes from the handle
        /// and the task.
        pub fn metadata(mut self, metadata: $crate::event::Metadata) -> Self {
            self.stamp.metadata = metadata;
            self
        }

        /// When it happened in the world. Default: now, by the handle's clock.
        pub fn occurred_at(
            mut self,
            moment: $crate::chrono::DateTime<$crate::chrono::Utc>,
        ) -> Self {
            self.stamp.occurred_at = Some(moment);
            self
        }
    };
}
pub(crate) use stamped;

/// A digest of a request: half of its SHA-256, in hex.
pub(crate) fn fingerprint(request: &[u8]) -> String {
    let hash = Sha256::digest(request);
    let half: [u8; 16] = std::array::from_fn(|index| hash[index]);
    format!("{:032x}", u128::from_be_bytes(half))
}

/// Appends until the outcome is known: an answer that was lost is asked for again with the same
/// ids. Rows of inline views go along.
pub(crate) async fn append(db: &Annals, mut append: Append) -> Result<Appended, AppendError> {
    for inline_projector in db.companions() {
        append.rows.extend(inline_projector.prepare(&append).await);
    }
    let store = &**db.store();
    if append.condition.is_some() {
        tagged(store)?;
    }
    if append.only_stream().is_none() {
        check_atomic(store)?;
    }
    let retries = db.retries();
    let mut lost = None;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let answer = store.append(append.clone()).await;
        let unknown = match (answer, lost) {
            (Err(AppendError::Unknown(error)), first) => first.unwrap_or(error),
            // The store cannot be asked now, which says nothing about the answer that was lost
            // before.
            (
                Err(
                    AppendError::Store(_)
                    | AppendError::NotOwner { .. }
                    | AppendError::OwnershipMoving,
                ),
                Some(first),
            ) => first,
            (answer, _) => return answer,
        };
        if attempts >= retries.attempts_max {
            return Err(AppendError::Unknown(unknown));
        }
        tracing::debug!(attempts, error = %unknown, "the answer of an append was lost; asking \
            again");
        lost = Some(unknown);
        retries.pause(attempts).await;
    }
}

/// The store's way to decide over queries.
pub(crate) fn tagged(store: &dyn Store) -> Result<&dyn TaggedStore, Invalid> {
    store
        .tagged()
        .ok_or_else(|| lacks(store, "decide over a query"))
}

/// Refuses several streams at once where the store cannot append to them.
pub(crate) fn check_atomic(store: &dyn Store) -> Result<(), Invalid> {
    if store.atomic() {
        Ok(())
    } else {
        Err(lacks(store, "decide over several streams at once"))
    }
}

fn lacks(store: &dyn Store, what: &str) -> Invalid {
    let partitions = match store.partitions() {
        1 => String::new(),
        count => format!(": its log has {count} partitions, and no order across them"),
    };
    Invalid::new(format!("this store cannot {what}{partitions}"))
}

/// What a failed append means for the command: decide again, or this.
pub(crate) fn final_error<E>(error: AppendError) -> Option<CommandError<E>> {
    match error {
        AppendError::Conflict(violations) => {
            violations
                .into_iter()
                .find_map(|violation| match violation {
                    Violation::Stream { stream, found, .. }
                        if found.status == Status::Tombstoned =>
                    {
                        Some(CommandError::Tombstoned { stream })
                    }
                    _ => None,
                })
        }
        AppendError::Unknown(error) => Some(CommandError::Unknown(error)),
        AppendError::Invalid(invalid) => Some(CommandError::Invalid(invalid)),
        error => Some(CommandError::Append(error)),
    }
}
