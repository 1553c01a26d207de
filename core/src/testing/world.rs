//! A story about several streams: what was given in each, what was decided over them, and what was
//! appended to which.
//!
//! It is played on a store in memory through the loops that programs use. Nothing in it waits, so
//! it needs no runtime.

mod outcome;
mod print;

use std::fmt::{Debug, Display};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::bench::Bench;
use super::refusal::Refusal;
use super::story::stored_form;
use super::text::{shown, stored};
use super::watched::{Watched, at_once};
use crate::aggregate::commit::{CommandError, Committed, Stamp};
use crate::aggregate::{Aggregate, AggregateRef, At, Handle};
use crate::annals::Annals;
use crate::append::Append;
use crate::clock::{Clock, ManualClock};
use crate::decide::{Boundary, IntoDecision};
use crate::event::{NewEvent, RecordedEvent};
use crate::memory::MemoryStore;
use crate::moment::Instant;
use crate::position::Position;
use crate::stream::StreamId;
use crate::tag::Tag;
use crate::typed::{Event, IntoEvents};
use crate::with_causes;

/// Begins a story about several streams.
///
/// ```
/// # use annals_core::testing;
/// # use annals_core::{Aggregate, Event, IntoEvents};
/// # fn example<Account: Aggregate<Event = E> + std::fmt::Debug, E: Event, X: IntoEvents<E>>(
/// #     opened: fn(&str) -> E,
/// #     deposited: fn(i64) -> E,
/// #     transfer: fn(&Account, &Account, i64) -> Result<(X, X), String>) {
/// let story = testing::world()
///     .given("account-alice", [opened("Alice"), deposited(50)])
///     .given("account-bob", [opened("Bob")])
///     .decide((Account::at("alice"), Account::at("bob")), |(a, b)| transfer(a, b, 80));
/// println!("{story}");
/// # }
/// ```
pub fn world() -> World {
    let clock = Arc::new(ManualClock::default());
    let store = Watched::new(MemoryStore::new().on_clock(Arc::<ManualClock>::clone(&clock)));
    World {
        bench: Bench::of(Arc::new(store.clone()), clock).uncached(),
        store,
        said: Vec::new(),
        when: None,
        decided: false,
        appended: Vec::new(),
        refusal: None,
    }
}

/// A story about several streams; [`world`] begins it. It prints as text for a snapshot:
///
/// ```text
/// given     1  account-alice  account.opened {"owner":"Alice"}
///           2  account-alice  account.deposited {"cents":50}
///           3  account-bob    account.opened {"owner":"Bob"}
///           4  account-carol  account.opened {"owner":"Carol"}  (not selected)
///
/// when     alice sends bob 20
/// saw      (Account { open: true, cents: 50 }, Account { open: true, cents: 0 })
/// then      5  account-alice  account.withdrawn {"cents":20}
///           6  account-bob    account.deposited {"cents":20}
/// ```
///
/// Events are numbered by their position in the log, and print as they are stored, with their tags.
/// `saw` is what a decision was taken on. `(not selected)` marks what was given and no step looked
/// at: the test may not need it, or a query misses it.
///
/// ```
/// # use annals_core::{Aggregate, Fold, Query, Tag, IntoDecision, Over, testing};
/// # fn example<CouponUse: Fold + std::fmt::Debug, X: IntoDecision<Over<CouponUse>>>(
/// #     issued: CouponUse::Event,
/// #     redeem: fn(&CouponUse) -> Result<X, String>) -> Result<(), annals_core::Invalid> {
/// testing::world()
///     .at("2026-03-01T00:00:00Z")
///     .given("coupon-1", [issued])
///     .at("2026-03-09T00:00:00Z")
///     .when("the coupon is eight days old")
///     .decide(CouponUse::over(Query::tagged(["coupon:SPRING".parse()?])), |coupon| redeem(coupon))
///     .assert_refused("the coupon does not hold any more");
/// # Ok(())
/// # }
/// ```
pub struct World {
    bench: Bench,
    store: Watched,
    said: Vec<Entry>,
    when: Option<String>,
    /// Whether there was a step that could have looked at what was given.
    decided: bool,
    appended: Vec<RecordedEvent>,
    refusal: Option<Refusal>,
}

enum Entry {
    At(DateTime<Utc>),
    Given(Vec<RecordedEvent>),
    Step {
        when: Option<String>,
        saw: Option<String>,
        came: Came,
        state: Option<String>,
    },
}

enum Came {
    Appended(Vec<RecordedEvent>),
    Refused(String),
}

impl World {
    /// Moves the clock to this moment; what comes next happens then. A story begins at
    /// 2026-01-01T00:00:00Z.
    ///
    /// # Panics
    ///
    /// When it is no time.
    #[must_use = "a story is printed, or asserted on"]
    #[track_caller]
    pub fn at(mut self, moment: impl Into<Instant>) -> World {
        match moment.into().0 {
            Ok(moment) => self.bench.clock().set(moment),
            Err(invalid) => panic!("{invalid}"),
        }
        self.said.push(Entry::At(self.bench.clock().now()));
        self
    }

    /// Moves the clock forward; what comes next happens then.
    ///
    /// ```
    /// use annals_core::chrono::TimeDelta;
    ///
    /// let story = annals_core::testing::world()
    ///     .at("2026-03-01T09:00:00Z")
    ///     .later(TimeDelta::minutes(30));
    /// assert_eq!(
    ///     story.to_string(), "at       2026-03-01T09:00:00Z\n\nat       2026-03-01T09:30:00Z"
    /// );
    /// ```
    #[must_use = "a story is printed, or asserted on"]
    pub fn later(mut self, step: TimeDelta) -> World {
        self.bench.clock().advance(step);
        self.said.push(Entry::At(self.bench.clock().now()));
        self
    }

    /// What happened in a stream, now by the clock.
    ///
    /// # Panics
    ///
    /// When an event cannot be written or read back, or the stream cannot have that name.
    #[must_use = "a story is printed, or asserted on"]
    #[track_caller]
    pub fn given<E: Event>(
        self,
        stream: impl AsRef<str>,
        events: impl IntoIterator<Item = E>,
    ) -> World {
        self.given_tagged(stream, events, [])
    }

    /// What happened in a stream, with tags beside those that the events carry themselves: as
    /// [`Emit::tagged`](crate::Emit::tagged) adds them.
    ///
    /// # Panics
    ///
    /// As [`given`](World::given).
    ///
    /// ```
    /// # use annals_core::{Event, testing};
    /// # fn example<E: Event>(enrolled: E) -> Result<(), annals_core::Invalid> {
    /// let story = testing::world().given_tagged("course-c1", [enrolled], ["student:s1".parse()?]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a story is printed, or asserted on"]
    #[track_caller]
    pub fn given_tagged<E: Event>(
        self,
        stream: impl AsRef<str>,
        events: impl IntoIterator<Item = E>,
        tags: impl IntoIterator<Item = Tag>,
    ) -> World {
        let stream = stream.as_ref();
        let tags: Vec<_> = tags.into_iter().collect();
        let mut drafts = Vec::new();
        for event in events {
            let mut new = match NewEvent::written(&event) {
                Ok(new) => new,
                Err(error) => panic!(
                    "what was given in `{stream}` cannot be written: {}\n\n{self}\n",
                    with_causes(&error)
                ),
            };
            new.tags.extend_from_slice(&tags);
            if let Err(error) = E::decode(stored_form(&new)) {
                let event = stored(stored_form(&new));
                panic!(
                    "what was given in `{stream}`, `{event}`, cannot be read: {}\n\n{self}\n",
                    with_causes(&error)
                );
            }
            drafts.push(new);
        }
        self.append(stream, drafts)
    }

    /// What was stored in a stream, as (type, schema version, JSON), in old shapes too. Those who
    /// look at it read it.
    ///
    /// # Panics
    ///
    /// When the stream cannot have that name.
    ///
    /// ```
    /// use annals_core::testing;
    ///
    /// let story = testing::world().given_stored(
    ///     "cart-1", [("cart.added", 1, r#"{"sku":"kettle"}"#)],
    /// );
    /// assert_eq!(story.to_string(), r#"given     1  cart-1  cart.added {"sku":"kettle"}"#);
    /// ```
    #[must_use = "a story is printed, or asserted on"]
    #[track_caller]
    pub fn given_stored<T, J>(
        self,
        stream: impl AsRef<str>,
        events: impl IntoIterator<Item = (T, u32, J)>,
    ) -> World
    where
        T: Into<String>,
        J: Display,
    {
        let drafts = events
            .into_iter()
            .map(|(event_type, schema_version, json)| {
                NewEvent::json(event_type.into(), json.to_string()).schema_version(schema_version)
            });
        self.append(stream.as_ref(), drafts.collect())
    }

    /// Says what the next step is, in the text.
    #[must_use = "a story is printed, or asserted on"]
    pub fn when(mut self, what: impl Into<String>) -> World {
        self.when = Some(what.into());
        self
    }

    /// Decides over several aggregates and queries, as [`Annals::decide`] does. The text says what
    /// the decision saw.
    ///
    /// # Panics
    ///
    /// When what it looks at cannot be read, or what it decides cannot be written.
    #[must_use = "a story is printed, or asserted on"]
    #[track_caller]
    pub fn decide<B, F, D, E>(self, boundary: B, mut decide: F) -> World
    where
        B: Boundary,
        B::State: Debug,
        F: FnMut(&B::State) -> Result<D, E> + Send,
        D: IntoDecision<B>,
        E: Display + Send + 'static,
    {
        let mut saw = None;
        let watched = |state: &B::State| {
            saw = Some(shown(state));
            decide(state)
        };
        let done = self
            .store
            .watch(self.bench.decide(boundary, watched).into_future());
        self.step(done, saw, || None)
    }

    /// Runs a command on one aggregate, as [`AggregateRef::run`] does. The text says what the state
    /// was afterwards.
    ///
    /// # Panics
    ///
    /// When the aggregate cannot be read, or what is decided cannot be written.
    ///
    /// ```
    /// # use annals_core::{Aggregate, IntoEvents, testing};
    /// # fn example<Account: Aggregate + std::fmt::Debug, X: IntoEvents<Account::Event>>(
    /// #     withdraw: fn(&Account, i64) -> Result<X, String>) {
    /// let story = testing::world()
    ///     .when("alice withdraws 80")
    ///     .run(Account::at("alice"), |a| withdraw(a, 80));
    /// # }
    /// ```
    #[must_use = "a story is printed, or asserted on"]
    #[track_caller]
    pub fn run<A, F, D, E>(self, at: At<A>, decide: F) -> World
    where
        A: Aggregate + Debug,
        F: FnMut(&A) -> Result<D, E> + Send,
        D: IntoEvents<A::Event>,
        E: Display + Send + 'static,
    {
        let aggregate = AggregateRef::new(Annals::clone(&self.bench), at);
        let done = self.store.watch(aggregate.run(decide).into_future());
        self.step(done, None, || {
            at_once(aggregate.load().into_future())
                .ok()
                .map(|state| shown(&*state))
        })
    }

    /// Gives one aggregate a command that is a message, and is printed by its `Debug` unless
    /// [`when`](World::when) said otherwise.
    ///
    /// # Panics
    ///
    /// As [`run`](World::run).
    #[must_use = "a story is printed, or asserted on"]
    #[track_caller]
    pub fn execute<A, C>(mut self, at: At<A>, command: C) -> World
    where
        A: Aggregate + Handle<C> + Debug,
        C: Debug + Send + Sync,
        <A as Handle<C>>::Error: Display + 'static,
    {
        self.when = Some(self.when.unwrap_or_else(|| shown(&command)));
        let aggregate = AggregateRef::new(Annals::clone(&self.bench), at);
        let done = self.store.watch(aggregate.execute(command).into_future());
        self.step(done, None, || {
            at_once(aggregate.load().into_future())
                .ok()
                .map(|state| shown(&*state))
        })
    }

    #[track_caller]
    fn append(mut self, stream: &str, mut drafts: Vec<NewEvent>) -> World {
        let stream = match StreamId::new(stream) {
            Ok(stream) => stream,
            Err(invalid) => panic!("{invalid}"),
        };
        self.refusal = None;
        self.appended = Vec::new();
        let mut given = Vec::new();
        if !drafts.is_empty() {
            let before = self.head();
            if let Err(panicked) = Stamp::default().apply(&self.bench, &stream, drafts.iter_mut()) {
                panic!("{panicked}\n\n{self}\n");
            }
            if let Err(error) = at_once(
                self.bench
                    .store()
                    .append(Append::new(stream.clone(), drafts)),
            ) {
                panic!(
                    "what was given in `{stream}` cannot be appended: {}\n\n{self}\n",
                    with_causes(&error)
                );
            }
            given = self.after(before);
        }
        match self.said.last_mut() {
            Some(Entry::Given(events)) => events.extend(given),
            _ => self.said.push(Entry::Given(given)),
        }
        self
    }

    #[track_caller]
    fn step<E>(
        mut self,
        done: Result<Committed, CommandError<E>>,
        saw: Option<String>,
        state: impl FnOnce() -> Option<String>,
    ) -> World
    where
        E: Display + Send + 'static,
    {
        self.refusal = None;
        self.appended = Vec::new();
        self.decided = true;
        let impossible = |why: String| -> ! { panic!("{why}\n\n{self}\n") };
        let refusal = match done {
            Ok(done) => {
                if let Some(first) = done.events().first() {
                    self.appended = self.after(first.position.minus(1));
                }
                None
            }
            Err(CommandError::Refused(error)) => Some(Refusal::new(error)),
            Err(CommandError::Load(error)) => impossible(with_causes(&error).to_string()),
            Err(CommandError::Encode(error)) => impossible(with_causes(&error).to_string()),
            Err(CommandError::Append(error)) => impossible(with_causes(&error).to_string()),
            // No error of the domain, and yet an answer: the same aggregate twice, or one that is
            // gone for ever.
            Err(error) => Some(Refusal::new(error)),
        };
        let came = match &refusal {
            Some(refusal) => Came::Refused(refusal.text().to_owned()),
            None => Came::Appended(self.appended.clone()),
        };
        self.said.push(Entry::Step {
            when: self.when.take(),
            saw,
            came,
            state: state(),
        });
        self.refusal = refusal;
        self
    }

    fn head(&self) -> Position {
        self.everything()
            .last()
            .map_or(Position::START, |event| event.position)
    }

    fn everything(&self) -> Vec<RecordedEvent> {
        self.after(Position::START)
    }

    fn after(&self, position: Position) -> Vec<RecordedEvent> {
        self.store.log_after(position).unwrap_or_default()
    }
}
