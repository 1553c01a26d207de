//! The loop: load, decide, append, and again when others got there first.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;

use super::cache::turn_of;
use super::commit::{CommandError, Committed, Stamp, append, final_error, stamped};
use super::fold::{CachedState, catch_up, save_snapshot};
use super::{Aggregate, AggregateRef};
use crate::append::Append;
use crate::contain::net;
use crate::event::NewEvent;
use crate::stream::StreamId;
use crate::stream_state::Status;
use crate::typed::{EncodeError, Event, IntoEvents};

/// A command on its way. Nothing happens until it is awaited.
///
/// ```
/// # use annals_core::{Aggregate, AggregateRef, CommandError, IntoEvents, Metadata};
/// # async fn example<A: Aggregate, X: IntoEvents<A::Event>>(
/// #     cart: AggregateRef<A>, check_out: fn(&A) -> Result<X, String>,
/// # )
/// # -> Result<(), CommandError<String>> {
/// cart
///     .run(|c| check_out(c))
///     .idempotency_key("order-7")
///     .metadata(Metadata::default().actor("ada")).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens until it is awaited"]
pub struct Run<'a, A, F, D, E> {
    on: &'a AggregateRef<A>,
    decide: F,
    existence: Existence,
    stamp: Stamp,
    returns: PhantomData<fn() -> (D, E)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existence {
    Either,
    Absent,
    Present,
}

impl<'a, A, F, D, E> Run<'a, A, F, D, E> {
    pub(super) fn new(on: &'a AggregateRef<A>, decide: F) -> Self {
        Run {
            on,
            decide,
            existence: Existence::Either,
            stamp: Stamp::default(),
            returns: PhantomData,
        }
    }

    pub(super) fn when_absent(mut self) -> Self {
        self.existence = Existence::Absent;
        self
    }

    pub(super) fn when_present(mut self) -> Self {
        self.existence = Existence::Present;
        self
    }

    stamped! {
        /// Names the request: run again with the same key on the same aggregate, also after a
        /// restart, it returns the first result without deciding. A command that was refused or
        /// decided nothing leaves no trace and may be sent again. An empty key is
        /// [`CommandError::Invalid`].
    }
}

impl<'a, A, F, D, E> IntoFuture for Run<'a, A, F, D, E>
where
    A: Aggregate,
    F: FnMut(&A) -> Result<D, E> + Send + 'a,
    D: IntoEvents<A::Event> + 'a,
    E: Send + 'a,
{
    type Output = Result<Committed, CommandError<E>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<A, F, D, E> Run<'_, A, F, D, E>
where
    A: Aggregate,
    F: FnMut(&A) -> Result<D, E> + Send,
    D: IntoEvents<A::Event>,
    E: Send,
{
    async fn run(mut self) -> Result<Committed, CommandError<E>> {
        self.stamp.check()?;
        let on = self.on;
        let existence = self.existence;
        let db = on.db();
        let stream = on.stream()?;
        let store = &**db.store();
        let partition = store.partition_of(stream);
        let mut turn = db.cache().turn(turn_of::<A>(stream)).await;
        if let Some(done) = self.stamp.done_before(store, stream, partition).await? {
            return Ok(done);
        }
        let mut held = turn
            .take::<CachedState<A>>()
            .filter(|held| held.incarnation == Some(store.incarnation()));
        // Whether what is held was just read up to the tail. What follows from a state that was not
        // is decided again.
        let mut fresh = false;
        let mut attempts = 0;
        loop {
            let mut state = match held.take() {
                Some(state) if attempts == 0 && !fresh => state,
                older => {
                    fresh = true;
                    catch_up(store, stream, older).await?
                }
            };
            let decided = match decide(&mut self.decide, existence, stream, &state) {
                Ok(events) if !events.is_empty() => events,
                // Nothing half-changed is kept.
                Err(CommandError::Panicked(panicked)) => {
                    return Err(CommandError::Panicked(panicked));
                }
                _ if !fresh => {
                    fresh = true;
                    held = Some(state);
                    continue;
                }
                nothing => {
                    let seen = [(state.partition, state.position)];
                    turn.put(state);
                    // The same request may have taken effect elsewhere after it was asked for: then
                    // the state that was decided on shows it already, and its result is the answer.
                    if let Some(done) = self.stamp.done_before(store, stream, partition).await? {
                        return Ok(done);
                    }
                    return nothing.map(|_| Committed::nothing(store, &seen));
                }
            };
            attempts += 1;
            let mut drafts = decided
                .iter()
                .map(NewEvent::written)
                .collect::<Result<Vec<_>, _>>()?;
            self.stamp.apply(db, stream, drafts.iter_mut())?;
            // The state takes in what will be read back, which need not be what was decided: a
            // codec may leave things out.
            let stored = read_back::<A::Event>(&drafts)?;
            let mut request = Append::new(stream.clone(), drafts).expecting(state.expected());
            request.decided_on = state.incarnation;
            match append(db, request).await {
                Ok(appended) => {
                    let done = self.stamp.done(&appended);
                    if let Err(reused) = self.stamp.check_repeated(store, &done).await {
                        turn.put(state);
                        return Err(reused);
                    }
                    // The first result may be of another process: its events are older than the
                    // state that is cached here.
                    if !done.was_repeated() {
                        if !state.take_in(stream, &stored) {
                            return Ok(done);
                        }
                        let last = appended.last();
                        state.version = last.version;
                        state.status = Status::Active;
                        state.partition = last.partition;
                        state.position = last.position;
                        state.unsaved += appended.events().len() as u64;
                        save_snapshot(store, stream, &mut state).await;
                    }
                    turn.put(state);
                    return Ok(done);
                }
                Err(error) => {
                    held = Some(state);
                    if let Some(error) = final_error(error) {
                        return Err(error);
                    }
                }
            }
            if attempts >= db.retries().attempts_max {
                return Err(CommandError::Contended { attempts });
            }
            // A cached state that had become old is no sign of contention.
            if fresh {
                db.retries().pause(attempts).await;
            }
        }
    }
}

fn decide<A, D, E>(
    decide: &mut impl FnMut(&A) -> Result<D, E>,
    existence: Existence,
    stream: &StreamId,
    held: &CachedState<A>,
) -> Result<Vec<A::Event>, CommandError<E>>
where
    A: Aggregate,
    D: IntoEvents<A::Event>,
{
    match (existence, held.status) {
        (_, Status::Tombstoned) => Err(CommandError::Tombstoned {
            stream: stream.clone(),
        }),
        (Existence::Absent, Status::Active) => Err(CommandError::AlreadyExists {
            stream: stream.clone(),
        }),
        (Existence::Present, Status::Absent | Status::Deleted) => Err(CommandError::NotFound {
            stream: stream.clone(),
        }),
        _ => net(
            || format!("the decision of a command on `{stream}`"),
            || decide(&held.state).map(IntoEvents::into_events),
        )?
        .map_err(CommandError::Refused),
    }
}

pub(crate) fn read_back<E: Event>(drafts: &[NewEvent]) -> Result<Vec<E>, EncodeError> {
    let mut events = Vec::with_capacity(drafts.len());
    for draft in drafts {
        events.extend(draft.read_back::<E>()?);
    }
    Ok(events)
}

impl<A, F, D, E> fmt::Debug for Run<'_, A, F, D, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("on", self.on)
            .field("stamp", &self.stamp)
            .finish_non_exhaustive()
    }
}
