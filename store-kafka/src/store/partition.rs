//! A partition as callers see it: what is appended waits until this process owns it, and what is
//! undecided until it is decided.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{
    Append, AppendError, Appended, ChangeStream, EventStore as _, Failure, Found, Partition,
    Placed, RecordedEvent, StoreError, StreamState,
};

use super::copy::Copy;
use super::state::{Role, Shared, State};
use crate::error::unavailable;

/// How long an append waits for a partition that this process is about to own.
const OPENING: Duration = Duration::from_secs(5);

/// How long an append waits until its outcome is known.
const UNDECIDED: Duration = Duration::from_secs(30);

/// How long an append waits that came between two writers of this process.
const AGAIN: Duration = Duration::from_millis(5);

/// What is said while this process takes a partition over.
const OPENS: &str = "this process takes over the partition of the stream: it has fenced the last \
                     owner, or is doing so, and still reads what that one wrote. Nothing was \
                     recorded; send the command again in a moment";

/// One partition, in this process.
#[derive(Debug)]
pub(super) struct PartitionHandle {
    pub(super) number: Partition,
    pub(super) copy: Arc<Copy>,
    pub(super) state: Shared,
}

/// What an append may do.
enum Turn {
    /// The copy takes it.
    Write,
    /// Whatever it became is in the copy, and nothing new is taken.
    Look,
    /// It is for another process: the one that is named, when it is known.
    NotOwner(Option<String>),
}

impl PartitionHandle {
    pub(super) async fn append(&self, append: &Append) -> Result<Appended, AppendError> {
        let write = || async { self.copy.store()?.append(append.clone()).await };
        let (appended, was_undecided) = self.decide(write).await?;
        let placed = appended.events().iter().cloned();
        let placed = placed.map(|placed| self.placed(placed)).collect();
        // Found again after its outcome was lost: it was written just now.
        let was_repeated = appended.was_repeated() && !was_undecided;
        Ok(Appended::new(appended.token().log(), placed, was_repeated))
    }

    pub(super) async fn change(&self, change: &ChangeStream) -> Result<StreamState, AppendError> {
        let write = || async { self.copy.store()?.change_stream(change.clone()).await };
        Ok(self.decide(write).await?.0)
    }

    /// Does it when this process owns the partition, and again while its outcome is unknown: ids
    /// make it happen once. Says whether it was undecided meanwhile.
    async fn decide<T, F>(&self, write: impl Fn() -> F) -> Result<(T, bool), AppendError>
    where
        F: Future<Output = Result<T, AppendError>>,
    {
        let began = Instant::now();
        let mut longest = OPENING;
        let mut undecided = None;
        loop {
            let left = longest.saturating_sub(began.elapsed());
            let turn = wait_for_turn(&self.state, left, undecided).await?;
            if let Turn::NotOwner(owner) = turn {
                return Err(not_owner(owner));
            }
            let before = self.state.borrow().clone();
            let error = match write().await {
                Ok(done) => return Ok((done, undecided.is_some())),
                Err(error) => error,
            };
            match (turn, error) {
                (Turn::Look, error) => {
                    let owner = self.state.borrow().owner.clone();
                    return Err(self.copy.told_append(looked(error, owner)));
                }
                (_, AppendError::Unknown(error)) => {
                    let (is_taken_back, since) = {
                        let state = self.state.borrow();
                        let is_taken_back = state.has_taken_back_since(&before);
                        (is_taken_back, state.undecided_since(&before))
                    };
                    // A record that is refused may be that of another append in the transaction,
                    // which comes in parts when it is tried again.
                    let limit = match is_taken_back && error.failure() == Failure::Invalid {
                        true => OPENING,
                        false => UNDECIDED,
                    };
                    if began.elapsed() >= limit {
                        // What an earlier try left open may be what is recorded.
                        return Err(match is_taken_back && undecided.is_none() {
                            true => error.into(),
                            false => self.copy.told_append(AppendError::Unknown(error)),
                        });
                    }
                    tracing::debug!(%error, is_taken_back, "an append is tried again");
                    longest = UNDECIDED;
                    if !is_taken_back {
                        undecided = Some(since);
                    }
                }
                // It was fenced in between, or the file is read-only; nothing was written.
                (_, AppendError::Store(error)) if error.failure() == Failure::ReadOnly => {
                    if began.elapsed() >= UNDECIDED {
                        let state = self.state.borrow();
                        return Err(match state.role {
                            Role::Owning => error.into(),
                            _ => not_owner(state.owner.clone()),
                        });
                    }
                    tracing::debug!(%error, "an append waits for its partition");
                    tokio::time::sleep(AGAIN).await;
                }
                // What was tried before may be recorded.
                (_, AppendError::Store(error)) if undecided.is_some() => {
                    return Err(self.copy.told_append(AppendError::Unknown(error)));
                }
                (_, error) => return Err(self.copy.told_append(error)),
            }
        }
    }

    pub(super) fn placed(&self, mut placed: Placed) -> Placed {
        placed.partition = self.number;
        placed
    }

    pub(super) fn found(&self, mut found: Found) -> Found {
        found.placed = self.placed(found.placed);
        found
    }

    pub(super) fn recorded(&self, mut events: Vec<RecordedEvent>) -> Vec<RecordedEvent> {
        for event in &mut events {
            event.partition = self.number;
        }
        events
    }
}

/// Waits until something can be done about an append, for so long. It ends a standby, also one that
/// began while it waited.
async fn wait_for_turn(
    shared: &Shared,
    longest: Duration,
    undecided: Option<u64>,
) -> Result<Turn, AppendError> {
    let began = Instant::now();
    let mut states = shared.subscribe();
    loop {
        let state = states.borrow_and_update().clone();
        if state.is_standby && undecided.is_none() {
            shared.send_if_modified(State::stands_by_no_more);
            continue;
        }
        if let Some(turn) = turn(&state, undecided) {
            return Ok(turn);
        }
        if let Some(error) = state.refusal() {
            return Err(match undecided {
                Some(_) => AppendError::Unknown(error),
                None => error.into(),
            });
        }
        let left = longest.saturating_sub(began.elapsed());
        let wait = left.min(state.moves_for());
        match tokio::time::timeout(wait, states.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(closed().into()),
            Err(_) if wait < left => {}
            Err(_) => return late(&state, undecided),
        }
    }
}

/// What can be done now; nothing when it has to wait.
fn turn(state: &State, undecided: Option<u64>) -> Option<Turn> {
    let is_decided = undecided.is_none_or(|since| state.settled > since);
    match state.role {
        Role::Owning if is_decided => Some(Turn::Write),
        _ if undecided.is_some() && is_decided => Some(Turn::Look),
        Role::Following
            if undecided.is_none() && state.last_error.is_none() && !state.is_moving() =>
        {
            Some(Turn::NotOwner(state.owner.clone()))
        }
        _ => None,
    }
}

/// What an append ends with that waited too long.
fn late(state: &State, undecided: Option<u64>) -> Result<Turn, AppendError> {
    let why = state.last_error.clone();
    if undecided.is_some() {
        let why = why.unwrap_or_else(|| "no process has opened the partition since".to_owned());
        return Err(AppendError::Unknown(unavailable(why)));
    }
    match why {
        Some(why) => Err(unavailable(why).into()),
        None if state.is_assigned => Err(unavailable(OPENS).into()),
        None => Ok(Turn::NotOwner(state.owner.clone())),
    }
}

/// What an undecided append ends with that the copy did not confirm.
fn looked(error: AppendError, owner: Option<String>) -> AppendError {
    match error {
        // Everything was applied that may have it: it was not recorded.
        AppendError::Store(error) if error.failure() == Failure::ReadOnly => not_owner(owner),
        AppendError::Store(error) | AppendError::Unknown(error) => AppendError::Unknown(error),
        // What a copy refuses stays so only where it is decided.
        _ => not_owner(owner),
    }
}

fn not_owner(owner: Option<String>) -> AppendError {
    match owner {
        Some(owner) => AppendError::NotOwner { owner: Some(owner) },
        None => AppendError::OwnershipMoving,
    }
}

fn closed() -> StoreError {
    StoreError::new(Failure::Closed, "the store was closed")
}

#[cfg(test)]
mod tests {
    use annals_core::{Limits, SystemClock};

    use super::super::copy::Folder;
    use super::super::layout::Identity;
    use super::*;

    #[test]
    fn an_undecided_append_waits_for_the_next_fence() {
        let mut state = State::new(Some(true));
        state.role = Role::Owning;
        state.settled = 1;
        assert!(matches!(turn(&state, None), Some(Turn::Write)));
        assert!(turn(&state, Some(1)).is_none(), "before the next fence");
        state.settled = 2;
        assert!(matches!(turn(&state, Some(1)), Some(Turn::Write)));
        state.role = Role::Following;
        state.owner = Some("b".into());
        assert!(matches!(turn(&state, Some(1)), Some(Turn::Look)));
        assert!(
            turn(&state, Some(2)).is_none(),
            "no process has fenced since"
        );
        assert!(matches!(turn(&state, None), Some(Turn::NotOwner(Some(owner))) if owner == "b"));
    }

    #[test]
    fn an_append_waits_while_ownership_moves_and_names_no_owner() {
        let mut state = State::new(Some(false));
        assert!(
            turn(&state, None).is_none(),
            "no process has said that it owns it"
        );
        let Ok(Turn::NotOwner(owner)) = late(&state, None) else {
            panic!("another process is to own it")
        };
        assert!(matches!(not_owner(owner), AppendError::OwnershipMoving));
        state.owner = Some("b".into());
        assert!(matches!(turn(&state, None), Some(Turn::NotOwner(_))));
        state.has_rebalanced();
        assert!(turn(&state, None).is_none(), "`b` may have lost it");
        state.is_owned_by(Some("c".into()));
        assert!(matches!(turn(&state, None), Some(Turn::NotOwner(Some(owner))) if owner == "c"));
    }

    #[test]
    fn a_writer_that_ended_names_no_owner() {
        let mut state = State::new(Some(true));
        state.role = Role::Owning;
        state.is_owned_by(Some("this process".into()));
        state.was_fenced = true;
        state.writes_no_more();
        assert_eq!(state.role, Role::Following);
        assert!(turn(&state, None).is_none(), "the next owner says so");
    }

    #[test]
    fn a_standby_names_no_owner_from_which_it_takes() {
        let mut state = State::new(Some(true));
        state.role = Role::Following;
        state.is_standby = true;
        state.is_owned_by(Some("b".into()));
        assert!(matches!(turn(&state, None), Some(Turn::NotOwner(Some(owner))) if owner == "b"));
        assert!(state.stands_by_no_more() && state.is_to_own());
        assert!(turn(&state, None).is_none(), "it waits for this process");
        state.is_owned_by(Some("c".into()));
        assert!(!state.stands_by_no_more());
        assert!(turn(&state, None).is_none(), "it is taken from `c`");
        state.is_taking_back = false;
        assert!(matches!(turn(&state, None), Some(Turn::NotOwner(Some(owner))) if owner == "c"));
    }

    #[tokio::test]
    async fn an_append_that_waits_ends_a_standby() {
        let mut state = State::new(Some(true));
        state.role = Role::Following;
        let shared: Shared = Arc::new(tokio::sync::watch::Sender::new(state));
        let waits = wait_for_turn(&shared, UNDECIDED, None);
        let goes_on = async {
            shared.send_modify(|state| {
                state.is_standby = true;
                state.is_owned_by(Some("b".into()));
            });
            let mut states = shared.subscribe();
            let owns = states.wait_for(|state| state.is_to_own()).await;
            assert!(owns.unwrap().owner.is_none());
            shared.send_modify(|state| state.role = Role::Owning);
        };
        let (turn, ()) = tokio::join!(waits, async {
            let within = tokio::time::timeout(UNDECIDED, goes_on);
            within.await.expect("the standby ends");
        });
        assert!(matches!(turn, Ok(Turn::Write)));
    }

    #[test]
    fn an_undecided_append_waits_for_its_own_writer() {
        let mut state = State::new(Some(true));
        state.role = Role::Owning;
        state.settled = 1;
        // The partition was opened once more before the append came to be written.
        let before = state.clone();
        state.settled = 2;
        state.writes_no_more();
        let since = Some(state.undecided_since(&before));
        assert!(turn(&state, since).is_none(), "its outcome was not read");
        state.settled = 3;
        assert!(matches!(turn(&state, since), Some(Turn::Look)));
    }

    #[test]
    fn only_the_writer_of_appends_takes_them_back() {
        let mut state = State::new(Some(true));
        let before = state.clone();
        state.takes_back();
        assert!(!state.has_taken_back_since(&before), "it said who opens");
        state.role = Role::Owning;
        state.takes_back();
        assert!(state.has_taken_back_since(&before));
        state.settled += 1;
        assert!(!state.has_taken_back_since(&before), "a later fence");
    }

    /// A partition that is owned, with an empty copy.
    async fn owned(folder: &tempfile::TempDir) -> PartitionHandle {
        let topic = Identity {
            cluster: "a".into(),
            name: "bank".into(),
            partitions: 1,
        };
        let lock = Folder::lock(folder.path()).await.unwrap();
        let clock = Arc::new(SystemClock);
        let copy = Copy::open(folder.path(), 0, lock, &topic, Limits::default(), clock);
        let mut state = State::new(Some(true));
        state.role = Role::Owning;
        PartitionHandle {
            number: Partition(0),
            copy: copy.await.unwrap(),
            state: Arc::new(tokio::sync::watch::Sender::new(state)),
        }
    }

    fn no_answer() -> StoreError {
        StoreError::new(Failure::Unavailable, "no answer")
    }

    #[tokio::test]
    async fn what_was_undecided_is_not_refused_by_a_failure() {
        let folder = tempfile::TempDir::new().unwrap();
        let partition = owned(&folder).await;
        let tries = std::cell::Cell::new(0);
        let write = || async {
            tries.set(tries.get() + 1);
            if tries.get() == 1 {
                partition.state.send_modify(|state| {
                    state.writes_no_more();
                    state.settled += 1;
                    state.role = Role::Owning;
                });
                return Err(AppendError::Unknown(no_answer()));
            }
            Err::<(), _>(StoreError::new(Failure::Closed, "the copy was closed").into())
        };
        let outcome = partition.decide(write).await;
        let is_unknown = matches!(
            &outcome,
            Err(AppendError::Unknown(error)) if error.failure() == Failure::Closed
        );
        assert!(is_unknown, "{outcome:?}");
        assert_eq!(tries.get(), 2);
    }

    #[tokio::test]
    async fn what_was_never_committed_is_tried_again_as_new() {
        let folder = tempfile::TempDir::new().unwrap();
        let partition = owned(&folder).await;
        let tries = std::cell::Cell::new(0);
        let write = || async {
            tries.set(tries.get() + 1);
            if tries.get() == 2 {
                return Ok(());
            }
            partition.state.send_modify(|state| {
                state.takes_back();
                state.writes_no_more();
            });
            Err(AppendError::Unknown(no_answer()))
        };
        let opens = async {
            let mut states = partition.state.subscribe();
            let opening = states.wait_for(|state| state.role == Role::Opening);
            drop(opening.await.unwrap());
            partition.state.send_modify(|state| {
                state.settled += 1;
                state.role = Role::Owning;
            });
        };
        let (outcome, ()) = tokio::join!(partition.decide(write), opens);
        let ((), was_undecided) = outcome.unwrap();
        assert_eq!((was_undecided, tries.get()), (false, 2));
    }

    #[test]
    fn a_full_disk_is_not_called_damage() {
        let mut state = State::new(Some(true));
        state.last_error = Some("no room left".into());
        assert!(state.refusal().is_none(), "it is tried again");
        for (failure, told) in [
            (Failure::Full, Failure::Full),
            (Failure::Invalid, Failure::Corrupt),
        ] {
            state.refused = Some(failure);
            let refusal = state.refusal().unwrap();
            assert_eq!(refusal.failure(), told);
            assert_eq!(refusal.to_string(), "no room left");
        }
    }

    #[test]
    fn a_copy_that_cannot_look_leaves_an_append_unknown() {
        let error = |failure| StoreError::new(failure, "a test");
        for failure in [Failure::Unavailable, Failure::Corrupt, Failure::Closed] {
            let found = looked(AppendError::Store(error(failure)), Some("b".into()));
            assert!(
                matches!(&found, AppendError::Unknown(of) if of.failure() == failure),
                "{found:?}"
            );
        }
        let undone = AppendError::Unknown(error(Failure::Unavailable));
        assert!(matches!(looked(undone, None), AppendError::Unknown(_)));
        let is_not_there = AppendError::Store(error(Failure::ReadOnly));
        for refused in [is_not_there, AppendError::Conflict(Vec::new())] {
            let found = looked(refused, Some("b".into()));
            assert!(matches!(found, AppendError::NotOwner { .. }), "{found:?}");
        }
    }

    #[test]
    fn an_append_that_waited_too_long_says_why() {
        let mut state = State::new(Some(true));
        assert!(turn(&state, None).is_none(), "it is opening");
        let error = late(&state, None).err().unwrap();
        assert!(
            error.to_string().contains("takes over the partition"),
            "{error}"
        );
        assert!(matches!(
            late(&state, Some(0)),
            Err(AppendError::Unknown(_))
        ));
        state.last_error = Some("no broker".into());
        let error = late(&state, None).err().unwrap();
        assert_eq!(error.to_string(), "no broker");
    }
}
