//! Keys that no store can keep, code that panics and calls that hang: each stays with its own key,
//! in views that are written with appends, in reactors and in processes.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use annals_core::chrono::TimeDelta;
use annals_core::{
    Annals, Append, DeadLetter, ManualClock, NewEvent, Partition, Position, ReadStream, Recorded,
    StreamId, Token,
};
use annals_macros::{Event, View};
use annals_projections::{
    Handlers, Listens, On, Poison, Process, ProcessSetup, Program, Project, ReactError, Reactor,
    ReactorSetup, ReadModels, Request, Row, Step, View, ViewSetup, With,
};
use serde::{Deserialize, Serialize};

use super::bank::{AccountEvent, deposited, happens, noted, options};
use super::gateway::{Gateway, TIMEOUT, Texts, reacting, settled, texts};
use super::test_store::{TestStore, store, store_on};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "last-notes",
    events(AccountEvent),
    crate = "annals_projections"
)]
struct LastNote {
    #[view(index)]
    text: String,
    events: u8,
}

impl Project<AccountEvent> for LastNote {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.events += 1;
        if let AccountEvent::Noted { text } = &**event {
            row.text.clone_from(text);
        }
        Ok(())
    }
}

/// Alice's second event is one that her row cannot hold; commands and other rows go on.
async fn only_alice_stays(setup: ViewSetup<LastNote>, is_live: bool) {
    let store = store().await;
    let db = Annals::on(store.handle()).with(setup.options(options()));
    let db = db.start().await.unwrap();
    happens(&db, "alice", noted("short")).await;
    let long = "x".repeat(1_025);
    let bad = happens(&db, "alice", noted(&long)).await.events()[0].position;
    happens(&db, "alice", noted(&long)).await;
    let done = happens(&db, "bob", noted("short")).await;
    let view = db.view::<LastNote>();
    if !is_live {
        view.wait_for(&done, TIMEOUT).await.unwrap();
        let keys = view.dead_letter_keys(None, 10).await.unwrap();
        assert_eq!(keys.len(), 1, "{keys:?}");
        assert_eq!((&*keys[0].key, keys[0].position), ("alice", bad));
        let reason = &keys[0].reason;
        assert!(reason.contains("has 1025 bytes"), "{reason}");
    }
    let row = LastNote {
        text: "short".into(),
        events: 1,
    };
    for account in ["alice", "bob"] {
        assert_eq!(view.get(account).await.unwrap().as_ref(), Some(&row));
    }
    let rows = view.rows().await.unwrap().rows;
    assert!(rows.iter().all(|found| found.value == row), "{rows:?}");
    assert_eq!(rows.len(), 2);
    db.stop().await;
}

pub(crate) async fn an_inline_row_that_cannot_be_kept_refuses_no_command() {
    only_alice_stays(ViewSetup::new().inline(), false).await;
}

pub(crate) async fn a_live_row_that_cannot_be_stored_stays_unchanged() {
    only_alice_stays(ViewSetup::new().live(), true).await;
    only_alice_stays(ViewSetup::new(), false).await;
}

/// Reacts to notes under the key that the note is; some calls never end.
struct ByNote(Gateway);

impl Reactor for ByNote {
    const NAME: &'static str = "by-note";
    type Event = AccountEvent;

    fn key(event: &Recorded<AccountEvent>) -> String {
        match &**event {
            AccountEvent::Noted { text } => text.clone(),
            _ => "others".into(),
        }
    }

    async fn react(&self, event: &Recorded<AccountEvent>, _: &Request) -> Result<(), ReactError> {
        let key = ByNote::key(event);
        if key.starts_with("hangs") {
            std::future::pending::<()>().await;
        }
        let position = event.record.position.get().cast_signed();
        let sent = (key, position, String::new());
        self.0.sent.send_modify(|all| all.push(sent));
        Ok(())
    }
}

/// The only dead letter is at `position`, and says so.
fn only_dead(letters: &[DeadLetter], position: Position, says: &str) {
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].position, position);
    let reason = letters[0].reason.as_deref().unwrap_or_default();
    assert!(reason.contains(says), "{reason}");
}

pub(crate) async fn an_overlong_reactor_key_is_a_dead_letter() {
    let store = store().await;
    let gateway = Gateway::default();
    let reacts = ReactorSetup::of(ByNote(gateway.clone())).lease(Duration::from_secs(3600));
    let db = Annals::on(store.handle())
        .with(reacts)
        .start()
        .await
        .unwrap();
    let bad = happens(&db, "alice", noted(&"k".repeat(300)))
        .await
        .events()[0]
        .position;
    let done = happens(&db, "alice", noted("short")).await;
    let reactor = db.reactor::<ByNote>();
    reactor.wait_for(&done, TIMEOUT).await.unwrap();
    assert_eq!(gateway.sent_to("short").len(), 1);
    let letters = reactor.dead_letters().all(None, 10).await.unwrap();
    only_dead(&letters, bad, "has 300 bytes, at most 255 are possible");
    db.stop().await;
}

pub(crate) async fn calls_that_hang_end_at_their_time_limit() {
    let store = store().await;
    let gateway = Gateway::default();
    let limit = Duration::from_millis(50);
    let reacts = ReactorSetup::of(ByNote(gateway.clone())).call_timeout(limit);
    let reacts = reacts.attempts(1, limit);
    let db = Annals::on(store.handle())
        .with(reacts)
        .start()
        .await
        .unwrap();
    // More than are made at once.
    for call in 0..20 {
        happens(&db, "alice", noted(&format!("hangs-{call}"))).await;
    }
    let done = happens(&db, "alice", noted("goes on")).await;
    let reactor = db.reactor::<ByNote>();
    reactor.wait_for(&done, TIMEOUT).await.unwrap();
    assert_eq!(gateway.sent_to("goes on").len(), 1);
    let letters = reactor.dead_letters().all(None, 100).await.unwrap();
    assert_eq!(letters.len(), 20);
    for letter in letters {
        assert_eq!(
            letter.reason.as_deref(),
            Some("the call took longer than 50ms")
        );
    }
    db.stop().await;
}

pub(crate) async fn a_decision_about_one_key_breaks_off_no_other_call() {
    let store = store().await;
    let gateway = Gateway::default();
    let db = reacting(&store, texts(&gateway)).await;
    let bad = happens(&db, "alice", noted("panic")).await;
    settled(&db, &bad).await;
    let slow = happens(&db, "slow", deposited(1)).await;
    let mut begun = gateway.begun.subscribe();
    begun.wait_for(|begun| *begun == 1).await.unwrap();
    let reactor = db.reactor::<Texts>();
    let bad = bad.events()[0].position;
    let skipped = reactor.skip("account-alice", bad, "nothing to say").await;
    skipped.unwrap();
    gateway.slow.add_permits(1);
    settled(&db, &slow).await;
    assert_eq!(
        (gateway.sent_to("slow"), *gateway.begun.borrow()),
        (vec![1], 1)
    );
    assert_eq!(reactor.dead_letters().all(None, 10).await.unwrap(), []);
    db.stop().await;
}

/// One stored event that is several by now.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(
    category = "shift",
    crate = "annals_core",
    retired("shift.planned", upcast = apart)
)]
enum ShiftEvent {
    Given { to: String },
}

fn apart((one, other): (String, String)) -> Vec<ShiftEvent> {
    [one, other].map(|to| ShiftEvent::Given { to }).into()
}

struct Told(Gateway);

impl Reactor for Told {
    const NAME: &'static str = "told";
    type Event = ShiftEvent;

    fn key(event: &Recorded<ShiftEvent>) -> String {
        let ShiftEvent::Given { to } = &**event;
        to.clone()
    }

    async fn react(&self, event: &Recorded<ShiftEvent>, _: &Request) -> Result<(), ReactError> {
        let sent = (Told::key(event), 1, String::new());
        self.0.sent.send_modify(|all| all.push(sent));
        Ok(())
    }
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "roster", crate = "annals_core")]
enum RosterEvent {
    Noted,
}

#[derive(Default)]
struct Roster;

impl Process for Roster {
    const NAME: &'static str = "roster";
    type Event = RosterEvent;

    fn listens() -> Listens<Roster> {
        Listens::new().to::<ShiftEvent>()
    }

    fn apply(&mut self, _: &RosterEvent) {}
}

impl On<ShiftEvent> for Roster {
    fn id(event: &Recorded<ShiftEvent>) -> Option<String> {
        let ShiftEvent::Given { to } = &**event;
        Some(to.clone())
    }

    fn on(&self, _: &Recorded<ShiftEvent>) -> Vec<Step<Roster>> {
        vec![Step::emit(RosterEvent::Noted)]
    }
}

async fn planned(store: &TestStore, one: &str, other: &str) -> Token {
    let payload = serde_json::to_vec(&(one, other)).unwrap();
    let event = NewEvent::json("shift.planned", payload);
    let append = Append::new(StreamId::new("shift-1").unwrap(), [event]);
    store.append(append).await.unwrap().token().clone()
}

/// The rows of processes: the streams that they have written.
async fn rosters(db: &Program) -> Vec<String> {
    let mut streams = Vec::new();
    let mut pages = db.events().pages();
    while let Some(page) = pages.next().await.unwrap() {
        for event in page.events {
            if *event.event_type == *"roster.noted" {
                streams.push(event.stream.to_string());
            }
        }
    }
    streams.sort();
    streams
}

pub(crate) async fn each_part_of_an_event_reaches_its_own_key() {
    let store = store().await;
    let gateway = Gateway::default();
    let db = Annals::on(store.handle())
        .with(ReactorSetup::of(Told(gateway.clone())))
        .with(ProcessSetup::<Roster>::new());
    let db = db.start().await.unwrap();
    let done = planned(&store, "ada", "bob").await;
    db.reactor::<Told>()
        .wait_for(done.clone(), TIMEOUT)
        .await
        .unwrap();
    db.process::<Roster>()
        .wait_for(done, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(
        (gateway.sent_to("ada").len(), gateway.sent_to("bob").len()),
        (1, 1)
    );
    assert_eq!(rosters(&db).await, ["roster-ada", "roster-bob"]);
    db.stop().await;
}

pub(crate) async fn an_overlong_process_id_is_a_dead_letter() {
    let store = store().await;
    let setup = ProcessSetup::<Roster>::new();
    let db = Annals::on(store.handle())
        .with(setup)
        .start()
        .await
        .unwrap();
    let bad = planned(&store, &"k".repeat(300), "bob").await;
    let done = planned(&store, "ada", "bob").await;
    let processes = db.process::<Roster>();
    processes.wait_for(done, TIMEOUT).await.unwrap();
    let letters = processes.dead_letters().all(None, 10).await.unwrap();
    only_dead(
        &letters,
        bad.position(Partition(0)),
        "has 300 bytes, at most 255 are possible",
    );
    assert_eq!(
        rosters(&db).await,
        ["roster-ada", "roster-bob", "roster-bob"]
    );
    db.stop().await;
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "alarm", crate = "annals_core")]
enum AlarmEvent {
    Set { text: String },
    Rang,
}

/// Rings half an hour after a note.
#[derive(Default)]
struct Alarm;

thread_local! {
    static PANICS: Cell<bool> = const { Cell::new(false) };
}

impl Process for Alarm {
    const NAME: &'static str = "alarm";
    type Event = AlarmEvent;

    fn listens() -> Listens<Alarm> {
        Listens::new().to::<AccountEvent>()
    }

    fn apply(&mut self, event: &AlarmEvent) {
        let is_bad = matches!(event, AlarmEvent::Set { text } if text == "bad");
        assert!(!is_bad || !PANICS.get(), "a state that panics");
    }

    fn reached(&self, _: &str, _: &str) -> Vec<Step<Alarm>> {
        vec![Step::emit(AlarmEvent::Rang), Step::finish()]
    }
}

impl On<AccountEvent> for Alarm {
    fn on(&self, event: &Recorded<AccountEvent>) -> Vec<Step<Alarm>> {
        let AccountEvent::Noted { text } = &**event else {
            return Vec::new();
        };
        let text = text.clone();
        let until = event.record.occurred_at + TimeDelta::minutes(30);
        vec![
            Step::emit(AlarmEvent::Set { text }),
            Step::deadline("ring", until),
        ]
    }
}

/// Waits until an alarm has rung.
async fn rings(store: &TestStore, alarm: &str) {
    let stream = StreamId::new(format!("alarm-{alarm}")).unwrap();
    let rung = async {
        let mut hint = store.hint();
        loop {
            let read = ReadStream::of(stream.clone());
            let page = store.read_stream(read).await.unwrap();
            if page
                .events
                .iter()
                .any(|event| *event.event_type == *"alarm.rang")
            {
                return;
            }
            hint.wait(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, rung).await.unwrap();
}

pub(crate) async fn a_panic_at_a_due_deadline_delays_no_other_process() {
    let clock = Arc::new(ManualClock::default());
    let store = store_on(Arc::clone(&clock) as _).await;
    let program = async || {
        let db = Annals::on(store.handle()).with_clock(Arc::clone(&clock) as _);
        db.with(ProcessSetup::<Alarm>::new()).start().await.unwrap()
    };
    let db = program().await;
    happens(&db, "1", noted("bad")).await;
    let done = happens(&db, "2", noted("good")).await;
    let alarms = db.process::<Alarm>();
    alarms.wait_for(&done, TIMEOUT).await.unwrap();
    db.stop().await;
    // The next program has no state of theirs at hand.
    PANICS.set(true);
    clock.advance(TimeDelta::hours(1));
    let db = program().await;
    let alarms = db.process::<Alarm>();
    rings(&store, "2").await;
    let error = db.status()[0].slots[0].last_error.clone();
    assert!(
        error.is_some_and(|error| error.error.contains("a state that panics")),
        "{:?}",
        db.status()
    );
    // The worker goes on with what comes.
    let done = happens(&db, "3", noted("good")).await;
    alarms.wait_for(&done, TIMEOUT).await.unwrap();
    db.stop().await;

    PANICS.set(false);
    let db = program().await;
    rings(&store, "1").await;
    db.stop().await;
}

/// A sum of what is no binary fraction, and what is easily lost on the way through JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Measured {
    sum: f64,
    nested: std::collections::HashMap<String, Vec<Option<f64>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<String>,
}

impl View for Measured {
    const NAME: &'static str = "measured";
    type Key = String;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }
}

impl Project<AccountEvent> for Measured {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        if let AccountEvent::Deposited { cents } = **event {
            row.sum += cents as f64 * 13.715571970987849;
            let sum = row.sum;
            let key = format!("{}", cents % 7);
            row.nested.entry(key).or_default().push(Some(sum));
            row.last = (cents % 2 == 0).then(|| sum.to_string());
        }
        Ok(())
    }
}

pub(crate) async fn floats_and_maps_in_rows_equal_those_of_a_rebuild() {
    let store = store().await;
    let setup = || ViewSetup::<Measured>::new().options(options().batch_events_max(7));
    let db = Annals::on(store.handle())
        .with(setup())
        .start()
        .await
        .unwrap();
    let mut expected = 0.0;
    let mut done = None;
    for cents in 1..=100 {
        expected += cents as f64 * 13.715571970987849;
        done = Some(happens(&db, "alice", deposited(cents)).await);
    }
    let view = db.view::<Measured>();
    let live = view.get("alice").at_least(&done.unwrap()).await.unwrap();
    assert_eq!(live.as_ref().unwrap().sum.to_bits(), f64::to_bits(expected));
    let building = db.rebuild::<Measured>().begin().await.unwrap();
    building.finished(|_| ()).await.unwrap();
    assert_eq!(view.get("alice").await.unwrap(), live);
    db.stop().await;
    let db = Annals::on(store.handle())
        .with(setup())
        .start()
        .await
        .unwrap();
    assert_eq!(db.view::<Measured>().get("alice").await.unwrap(), live);
    db.stop().await;
}
