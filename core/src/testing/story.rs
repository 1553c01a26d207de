//! A story about one aggregate: what was given, then step by step what was decided and what the
//! state was.
//!
//! Nothing is applied as it was decided or given. Everything goes through the codec first, so that
//! a story goes wrong where a program would.

use std::fmt::{self, Debug, Display};

use super::refusal::Refusal;
use super::text::{Script, listed, shown, stored};
use crate::aggregate::{Aggregate, Handle};
use crate::append::{Append, Limits};
use crate::event::NewEvent;
use crate::stream::StreamId;
use crate::typed::{Event, IntoEvents, Stored};
use crate::with_causes;

/// How often a state or an event is made on its own, to see whether it prints the same each time. A
/// map of two entries in no order passes by chance once in 2^`COPIES` runs.
const COPIES: usize = 12;

/// A story about one aggregate; [`Given`](super::Given) begins it. It prints as text for a
/// snapshot:
///
/// ```text
/// given     1  Opened { owner: "Alice" }
///           2  Deposited { cents: 50 }
///           3  Renamed { owner: "Alice" }  (changed nothing)
///
/// when     withdraw 80
/// refused  30 cents are missing
/// state    Account { open: true, cents: 50 }
/// ```
///
/// Each event is numbered by the version that it has in its stream. `(changed nothing)` marks what
/// was given and left the state as it was: the test may not need it, or the fold forgot it. An
/// event that does not come back from the codec as it was, or was upcasted, says what it
/// `reads as`.
///
/// ```
/// # use annals_core::testing::Given;
/// # use annals_core::{Aggregate, IntoEvents};
/// # fn example<Account, X>(
/// #     opened: Account::Event,
/// #     deposit: fn(&Account, i64) -> Result<X, String>,
/// #     deposited: fn(i64) -> Account::Event,
/// # )
/// # where
/// #     Account: Aggregate + std::fmt::Debug,
/// #     Account::Event: std::fmt::Debug + PartialEq,
/// #     X: IntoEvents<Account::Event>,
/// # {
/// Account::given([opened]).when(|a| deposit(a, 50)).assert_events([deposited(50)]);
/// # }
/// ```
pub struct Story<A: Aggregate> {
    state: A,
    /// The same state folded on its own several times: it must print the same each time.
    copies: Vec<A>,
    version: u64,
    script: Script,
    /// Whether the script says what the state is; it does after a step, and does not after what was
    /// given.
    state_said: bool,
    events: Vec<A::Event>,
    refusal: Option<Refusal>,
}

impl<A: Aggregate> Story<A> {
    pub(super) fn begin() -> Story<A> {
        Story {
            state: A::default(),
            copies: (0..COPIES).map(|_| A::default()).collect(),
            version: 0,
            script: Script::default(),
            state_said: false,
            events: Vec::new(),
            refusal: None,
        }
    }

    /// What the last step decided, as it was read back; nothing when it refused.
    pub fn events(&self) -> &[A::Event] {
        &self.events
    }

    /// How the last step refused, if it did.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_ref().map(Refusal::text)
    }

    /// The error by which the last step refused, if it did and the error is an `E`.
    ///
    /// ```
    /// # use annals_core::{Aggregate, testing::Story};
    /// # #[derive(Debug, PartialEq)] enum AccountError { Closed }
    /// # fn example<Account: Aggregate>(story: Story<Account>) {
    /// assert_eq!(story.refusal_as(), Some(&AccountError::Closed));
    /// # }
    /// ```
    pub fn refusal_as<E: 'static>(&self) -> Option<&E> {
        self.refusal.as_ref()?.of_type()
    }

    /// The state after everything so far.
    pub fn state(&self) -> &A {
        &self.state
    }
}

impl<A> Story<A>
where
    A: Aggregate + Debug,
    A::Event: Debug,
{
    /// What also happened, before the next step: as [`given`](super::Given::given).
    ///
    /// # Panics
    ///
    /// When an event cannot be written or read back, naming it.
    #[must_use = "a story is printed, or asserted on"]
    #[track_caller]
    pub fn and_given(mut self, events: impl IntoIterator<Item = A::Event>) -> Story<A> {
        let mut label = self.begin_given();
        for event in events {
            let as_given = format!("{event:?}");
            let new = self.written(&event, "given");
            self.assert_accepted(std::slice::from_ref(&new), "given");
            let read = self.read(stored_form(&new), "given");
            let text = shown(&event) + &reads_as(&as_given, &read);
            self.take_in_given(label, &text, &read);
            label = "";
        }
        self.end_given(label);
        self
    }

    /// What was also stored, before the next step: as [`given_stored`](super::Given::given_stored).
    ///
    /// # Panics
    ///
    /// When an event cannot be read, naming it.
    #[must_use = "a story is printed, or asserted on"]
    #[track_caller]
    pub fn and_given_stored<T, J>(
        mut self,
        events: impl IntoIterator<Item = (T, u32, J)>,
    ) -> Story<A>
    where
        T: AsRef<str>,
        J: Display,
    {
        let mut label = self.begin_given();
        for (event_type, schema_version, json) in events {
            let payload = json.to_string();
            let event = Stored {
                event_type: event_type.as_ref(),
                schema_version,
                codec: "json",
                payload: payload.as_bytes(),
            };
            let read = self.read(event, "given");
            let text = stored(event) + &reads_as("", &read);
            self.take_in_given(label, &text, &read);
            label = "";
        }
        self.end_given(label);
        self
    }

    /// Decides on the state so far. What is decided is written, read back, and taken in; a refusal
    /// leaves the state as it was.
    ///
    /// # Panics
    ///
    /// When what was decided cannot be written or read back, naming it.
    #[must_use = "a story is printed, or asserted on"]
    #[track_caller]
    pub fn when<D, E>(self, decide: impl FnOnce(&A) -> Result<D, E>) -> Story<A>
    where
        D: IntoEvents<A::Event>,
        E: Display + Send + 'static,
    {
        let decided = decide(&self.state).map(IntoEvents::into_events);
        self.decided(None, decided)
    }

    /// As [`when`](Story::when), with what is done in the text: for stories over several steps.
    ///
    /// # Panics
    ///
    /// As [`when`](Story::when).
    ///
    /// ```
    /// # use annals_core::testing::{Given, Story};
    /// # use annals_core::{Aggregate, IntoEvents};
    /// # fn example<A: Aggregate + std::fmt::Debug, X: IntoEvents<A::Event>>(
    /// #     story: Story<A>,
    /// #     deposit: fn(&A, i64) -> Result<X, String>,
    /// #     withdraw: fn(&A, i64) -> Result<X, String>)
    /// # where A::Event: std::fmt::Debug {
    /// let story = story
    ///     .step("deposit 50", |a| deposit(a, 50))
    ///     .step("withdraw 80", |a| withdraw(a, 80));
    /// # }
    /// ```
    #[must_use = "a story is printed, or asserted on"]
    #[track_caller]
    pub fn step<D, E>(
        self,
        what: impl AsRef<str>,
        decide: impl FnOnce(&A) -> Result<D, E>,
    ) -> Story<A>
    where
        D: IntoEvents<A::Event>,
        E: Display + Send + 'static,
    {
        let decided = decide(&self.state).map(IntoEvents::into_events);
        self.decided(Some(what.as_ref()), decided)
    }

    /// As [`when`](Story::when), by a command that is a message, and is printed by its `Debug`.
    ///
    /// # Panics
    ///
    /// As [`when`](Story::when).
    ///
    /// ```
    /// # use annals_core::testing::Story;
    /// # use annals_core::Handle;
    /// # #[derive(Debug)] struct Deposit { cents: i64 }
    /// # fn example<A: Handle<Deposit, Error = String> + std::fmt::Debug>(
    /// #     story: Story<A>
    /// # ) where A::Event: std::fmt::Debug {
    /// let story = story.when_command(Deposit { cents: 50 });
    /// # }
    /// ```
    #[must_use = "a story is printed, or asserted on"]
    #[track_caller]
    pub fn when_command<C>(self, command: C) -> Story<A>
    where
        A: Handle<C>,
        C: Debug,
        <A as Handle<C>>::Error: Display + 'static,
    {
        let decided = self.state.handle(&command).map(IntoEvents::into_events);
        self.decided(Some(&shown(&command)), decided)
    }

    /// Says that the last step decided exactly these events, and gives the story back.
    ///
    /// # Panics
    ///
    /// When it did not, with the whole story.
    #[track_caller]
    pub fn assert_events(self, events: impl IntoIterator<Item = A::Event>) -> Story<A>
    where
        A::Event: PartialEq,
    {
        let expected: Vec<_> = events.into_iter().collect();
        if self.refusal.is_some() || self.events != expected {
            let expected = listed(&expected);
            panic!("the last step should have decided\n{expected}\nbut this happened\n\n{self}\n");
        }
        self
    }

    /// Says that the last step refused with this text, and gives the story back.
    ///
    /// # Panics
    ///
    /// When it did not, with the whole story.
    ///
    /// ```
    /// # use annals_core::testing::Story;
    /// # use annals_core::{Aggregate, IntoEvents};
    /// # fn example<A: Aggregate + std::fmt::Debug, X: IntoEvents<A::Event>>(
    /// #     story: Story<A>, withdraw: fn(&A, i64) -> Result<X, String>,
    /// # )
    /// # where A::Event: std::fmt::Debug {
    /// story.when(|a| withdraw(a, 80)).assert_refused("30 cents are missing");
    /// # }
    /// ```
    #[track_caller]
    pub fn assert_refused(self, text: impl AsRef<str>) -> Story<A> {
        let text = text.as_ref();
        if self.refusal() != Some(text) {
            panic!(
                "the last step should have been refused\n  {text}\n\nbut this happened\n\n{self}\n"
            );
        }
        self
    }

    /// The label of the next event; none where it belongs to the block that was begun before.
    fn begin_given(&mut self) -> &'static str {
        if self.version > 0 && !self.state_said {
            return "";
        }
        self.script.begin();
        self.state_said = false;
        self.refusal = None;
        self.events.clear();
        "given"
    }

    fn take_in_given(&mut self, label: &str, text: &str, read: &[A::Event]) {
        let before = format!("{:?}", self.state);
        self.take_in(read);
        let idle = !read.is_empty() && before == format!("{:?}", self.state);
        self.script.say_event(
            label,
            self.version,
            &format!("{text}{}", if idle { "  (changed nothing)" } else { "" }),
        );
    }

    #[track_caller]
    fn end_given(&mut self, label: &str) {
        self.assert_state_is_stable();
        if !label.is_empty() {
            self.script.say(label, "nothing");
        }
    }

    /// One stored event: none, one or several as it reads today.
    fn take_in(&mut self, read: &[A::Event]) {
        self.version += 1;
        for event in read {
            self.state.apply(event);
            self.copies.iter_mut().for_each(|copy| copy.apply(event));
        }
    }

    /// A snapshot of a text that differs from run to run is of no use.
    #[track_caller]
    fn assert_state_is_stable(&self) {
        let state = format!("{:?}", self.state);
        if self.copies.iter().any(|copy| format!("{copy:?}") != state) {
            panic!(
                "the state after event {} prints differently each time it is folded: take a \
                 `BTreeMap` or `BTreeSet` where it has a `HashMap` or `HashSet`, and no clock and \
                 no random number\n  {state}\n\n{}\n",
                self.version, self.script
            );
        }
    }

    #[track_caller]
    fn decided<E>(mut self, what: Option<&str>, decided: Result<Vec<A::Event>, E>) -> Story<A>
    where
        E: Display + Send + 'static,
    {
        self.script.begin();
        if let Some(what) = what {
            self.script.say("when", what);
        }
        self.refusal = None;
        self.state_said = true;
        self.events.clear();
        match decided {
            Err(error) => {
                let refusal = Refusal::new(error);
                self.script.say("refused", refusal.text());
                self.refusal = Some(refusal);
            }
            Ok(events) if events.is_empty() => self.script.say("then", "nothing"),
            Ok(events) => {
                let mut label = "then";
                let written: Vec<_> = events
                    .iter()
                    .map(|event| self.written(event, "decided"))
                    .collect();
                self.assert_accepted(&written, "decided");
                for (event, new) in events.into_iter().zip(written) {
                    let as_decided = format!("{event:?}");
                    let read = self.read(stored_form(&new), "decided");
                    self.take_in(&read);
                    let text = shown(&event) + &reads_as(&as_decided, &read);
                    self.script.say_event(label, self.version, &text);
                    self.events.extend(read);
                    label = "";
                }
            }
        }
        self.assert_state_is_stable();
        self.script.say("state", &shown(&self.state));
        self
    }

    /// A story is refused what every store refuses.
    #[track_caller]
    fn assert_accepted(&self, events: &[NewEvent], how: &str) {
        if events.is_empty() {
            return;
        }
        let stream = StreamId::new(format!("{}-story", A::Event::CATEGORY));
        let accepted = stream
            .and_then(|stream| Append::new(stream, events.to_vec()).check(&Limits::default()));
        if let Err(invalid) = accepted {
            panic!(
                "no store accepts what was {how} after event {}: {invalid}\n\n{self}\n",
                self.version
            );
        }
    }

    #[track_caller]
    fn written(&self, event: &A::Event, how: &str) -> NewEvent {
        match NewEvent::written(event) {
            Ok(new) => new,
            Err(error) => panic!(
                "event {} that was {how}, {event:?}, cannot be written: {}\n\n{self}\n",
                self.version + 1,
                with_causes(&error)
            ),
        }
    }

    #[track_caller]
    fn read(&self, event: Stored<'_>, how: &str) -> Vec<A::Event> {
        let read = || A::Event::decode(event).map(|read| read.into_iter().collect::<Vec<_>>());
        match read() {
            Ok(events) => {
                let text = format!("{events:?}");
                let is_stable = (0..COPIES)
                    .filter_map(|_| read().ok())
                    .all(|again| format!("{again:?}") == text);
                assert!(
                    is_stable,
                    "event {} that was {how} prints differently each time it is read: take a \
                     `BTreeMap` or `BTreeSet` where it has a `HashMap` or `HashSet`\n  {text}\n",
                    self.version + 1
                );
                events
            }
            Err(error) => panic!(
                "event {} that was {how}, `{}`, cannot be read: {}\n\n{self}\n",
                self.version + 1,
                stored(event),
                with_causes(&error)
            ),
        }
    }
}

/// What a store would have of an event.
pub(super) fn stored_form(event: &NewEvent) -> Stored<'_> {
    Stored {
        event_type: &event.event_type,
        schema_version: event.schema_version,
        codec: &event.codec,
        payload: &event.payload,
    }
}

/// What an event reads as, where that is something else than it was.
fn reads_as<E: Debug>(was: &str, read: &[E]) -> String {
    match read {
        [] => "\nreads as nothing".to_owned(),
        [only] if format!("{only:?}") == was => String::new(),
        several => several.iter().fold(String::new(), |text, event| {
            format!("{text}\nreads as {}", shown(event))
        }),
    }
}

impl<A: Aggregate + Debug> Display for Story<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.state_said {
            return Display::fmt(&self.script, f);
        }
        let mut script = self.script.clone();
        script.say("state", &shown(&self.state));
        Display::fmt(&script, f)
    }
}

impl<A: Aggregate + Debug> Debug for Story<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}
