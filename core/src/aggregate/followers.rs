//! What follows the log and has not read what is being archived.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::commit::CommandError;
use super::{Aggregate, AggregateRef};
use crate::annals::Annals;
use crate::backoff::Backoff;
use crate::error::{Invalid, StoreError};
use crate::generation::{GenerationId, GenerationSpec};
use crate::position::Position;
use crate::read::ReadStream;
use crate::store::Store;
use crate::stream::{StreamId, Version};
use crate::typed::Event;
use crate::view_commit::{Checkpoint, CommitError};

/// How long archiving waits for what follows the log.
const WAIT: Duration = Duration::from_secs(5);

/// The pauses between its looks at the checkpoints: short ones for followers that are about to
/// arrive, and in all so few that waiting costs the store next to nothing.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(500));

/// A view, reactor or process manager, and how far it has read the log.
///
/// ```
/// use annals_core::{FollowerAt, GenerationId, Position};
///
/// let (name, position) = ("balances".into(), Position::new(7));
/// let late = FollowerAt { name, version: 2, generation: GenerationId(4), position };
/// assert_eq!(late.to_string(), "`balances` (version 2) at position 7 in generation 4");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct FollowerAt {
    /// Its stored name.
    pub name: String,
    /// The version of its fold.
    pub version: u32,
    /// Which of its generations it is.
    pub generation: GenerationId,
    /// The last position that all of its slots have read; of a reactor that repeats calls, the one
    /// after which it does.
    pub position: Position,
}

impl fmt::Display for FollowerAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FollowerAt {
            name,
            version,
            generation,
            position,
        } = self;
        write!(
            f,
            "`{name}` (version {version}) at position {position} in generation {generation}"
        )
    }
}

impl Annals {
    /// Drops what the store keeps of a view, of tables, a reactor or a process manager that no
    /// program has any more, by its stored name ([`FollowerAt::name`]): rows and history,
    /// checkpoints and dead letters, in all generations. Archiving does not wait for it from then
    /// on. Tables of one's own stay. A program that has it again builds it from the log; a reactor
    /// begins where a new one does.
    ///
    /// # Errors
    ///
    /// [`CommitError::Invalid`] when nothing has this name, or a program works at it.
    ///
    /// ```
    /// # async fn example(db: annals_core::Annals) -> Result<(), annals_core::CommitError> {
    /// db.drop_follower("balances").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn drop_follower(&self, name: &str) -> Result<(), CommitError> {
        let store = &**self.store();
        let named = name.escape_debug();
        let unknown = || Invalid::new(format!("nothing called `{named}` follows this log"));
        let views = store.views().ok_or_else(unknown)?;
        let states = views.states(&[name.to_owned()]).await?;
        let mut leases = states.iter().flat_map(|state| &state.leases);
        if let Some(held) = leases.find(|of| !of.expired) {
            let owner = &held.lease.owner;
            let what = format!(
                "`{named}` is followed by `{owner}`; stop that program first, or drop the \
                 generations that it does not follow with `drop_others`"
            );
            return Err(Invalid::new(what).into());
        }
        let generations = views.generations(name).await?;
        if generations.is_empty() {
            return Err(unknown().into());
        }
        // A view is never without a live generation: an empty one stays, of a version that no
        // program takes for its own, and handles nothing.
        let spec = GenerationSpec::of_nothing(name, store.id(), store.partitions());
        let empty = views.begin_generation(spec).await?;
        views.switch_to(empty.id).await?;
        for generation in generations {
            views.drop_generation(generation.id).await?;
        }
        Ok(())
    }
}

/// A list of followers, for a text.
pub(super) fn listed(followers: &[FollowerAt]) -> String {
    let followers: Vec<String> = followers.iter().map(ToString::to_string).collect();
    followers.join(", ")
}

impl<A: Aggregate> AggregateRef<A> {
    /// Waits until everything that follows the log, and whose checkpoints are in its store, has
    /// read the stream up to and with `up_to`.
    pub(super) async fn read_by_all<E: Send>(&self, up_to: Version) -> Result<(), CommandError<E>> {
        let store = &**self.db().store();
        let stream = self.stream()?;
        let read = ReadStream::of(stream.clone()).to(up_to);
        let page = store
            .read_stream(read.everything().backward().limit(1))
            .await?;
        let Some(last) = page.events.first().map(|event| event.position) else {
            return Ok(());
        };
        let mut late = Vec::new();
        let mut pauses = PAUSES;
        let waiting = async {
            loop {
                late = late_followers::<A::Event>(store, stream, last).await?;
                if late.is_empty() {
                    return Ok::<_, CommandError<E>>(());
                }
                // A head that moves says nothing about the followers, so it wakes no waiter here.
                tokio::time::sleep(pauses.next_wait()).await;
            }
        };
        match tokio::time::timeout(WAIT, waiting).await {
            Ok(done) => done,
            Err(_) => Err(CommandError::NotReadByAll {
                stream: stream.clone(),
                followers: late,
            }),
        }
    }
}

async fn late_followers<E: Event>(
    store: &dyn Store,
    stream: &StreamId,
    last: Position,
) -> Result<Vec<FollowerAt>, StoreError> {
    let Some(views) = store.views() else {
        return Ok(Vec::new());
    };
    let partition = store.partition_of(stream);
    let names = views.view_names().await?;
    let mut late = Vec::new();
    for state in views.states(&names).await? {
        let spec = &state.generation.spec;
        let mut named = spec.handles.iter();
        let handles = named.all(|name| name == GenerationSpec::BY_PARTITION)
            || E::shapes()
                .iter()
                .any(|shape| spec.handles.iter().any(|name| *name == shape.event_type));
        if spec.log != store.id() || !handles {
            continue;
        }
        let reached = |slot| state.checkpoint(slot, partition).map(settled_to);
        let slots = (0..spec.slots).filter(|slot| spec.reads(*slot, partition));
        let reached = slots.map(|slot| reached(slot).unwrap_or_default());
        let position = reached.min().unwrap_or_default();
        if position < last {
            late.push(FollowerAt {
                name: spec.view.clone(),
                version: spec.version,
                generation: state.generation.id,
                position,
            });
        }
    }
    Ok(late)
}

/// Up to where nothing is read again: the position of the checkpoint, or one before it from which a
/// reactor repeats its calls. It notes that in the state: `WindowNote` of `annals_runner`.
fn settled_to(checkpoint: &Checkpoint) -> Position {
    #[derive(Deserialize)]
    struct Note {
        window: Window,
    }

    #[derive(Deserialize)]
    struct Window {
        low: Option<Position>,
    }

    let note: Option<Note> = serde_json::from_slice(&checkpoint.state).ok();
    let low = note.and_then(|note| note.window.low);
    low.map_or(checkpoint.position, |low| low.min(checkpoint.position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Partition;

    #[test]
    fn a_follower_is_where_it_repeats_calls_from() {
        let noted = [
            ("", 7),
            (r#"{"window":{"settled":[9]}}"#, 7),
            (r#"{"window":{"settled":[],"low":3}}"#, 3),
            (r#"{"clock":{"orders":1}}"#, 7),
            (r#"{"drained":1}"#, 7),
            ("of another program", 7),
        ];
        for (state, settled) in noted {
            let mut checkpoint = Checkpoint::start(0, Partition(0));
            checkpoint.position = Position::new(7);
            checkpoint.state = state.into();
            assert_eq!(settled_to(&checkpoint), Position::new(settled), "{state}");
        }
    }

    #[test]
    fn waiting_for_followers_costs_few_looks() {
        let mut pauses = PAUSES;
        let mut waited = Duration::ZERO;
        let mut looks = 1;
        while waited < WAIT {
            waited += pauses.next_wait();
            looks += u32::from(waited < WAIT);
        }
        assert_eq!(looks, 15);
    }
}
