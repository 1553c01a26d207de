//! What one key, one row or one panic of user code does stays theirs.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Annals, Committed, MemoryStore, Position, Recorded};
use annals_macros::View;
use annals_projections::{
    Handlers, Poison, Program, Project, ReactError, Reactor, ReactorSetup, ReadModels, Request,
    Row, SlotState, View, ViewError, ViewSetup, With,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bank::{AccountEvent, deposited, happens, noted, options};
use super::gateway::{self, Gateway, settled, texts};
use super::test_store::{TestStore, store};

/// A view of accounts whose fold is told by notes what to do.
macro_rules! view {
    ($view:ident, $name:literal) => {
        impl View for $view {
            const NAME: &'static str = $name;
            type Key = String;

            fn handlers() -> Handlers<Self> {
                Handlers::new().on::<AccountEvent>()
            }
        }
    };
}

pub(super) async fn start<V: View>(store: &TestStore) -> Program {
    let db = Annals::on(store.handle());
    db.with(ViewSetup::<V>::new().options(options()))
        .start()
        .await
        .unwrap()
}

/// Alice's second event is the bad one: it is a dead letter with this reason, bob goes on, and so
/// does the view after a restart and in a rebuild.
async fn only_alice_is_dead<V: View<Key = String>>(store: &TestStore, reason: &str) {
    let db = start::<V>(store).await;
    happens(&db, "alice", deposited(1)).await;
    let bad = happens(&db, "alice", noted("bad")).await.events()[0].position;
    happens(&db, "alice", deposited(2)).await;
    let done = happens(&db, "bob", deposited(5)).await;
    is_dead::<V>(&db, bad, &done, reason).await;
    db.stop().await;

    let db = start::<V>(store).await;
    let done = happens(&db, "bob", deposited(5)).await;
    is_dead::<V>(&db, bad, &done, reason).await;
    db.rebuild::<V>()
        .begin()
        .await
        .unwrap()
        .finished(|_| ())
        .await
        .unwrap();
    is_dead::<V>(&db, bad, &done, reason).await;
    db.stop().await;
}

async fn is_dead<V: View<Key = String>>(
    db: &Program,
    bad: Position,
    done: &Committed,
    reason: &str,
) {
    let view = db.view::<V>();
    view.wait_for(done, Duration::from_secs(30)).await.unwrap();
    let keys = view.dead_letter_keys(None, 10).await.unwrap();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert_eq!((&*keys[0].key, keys[0].position), ("alice", bad));
    assert!(keys[0].reason.contains(reason), "{}", keys[0].reason);
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Mean {
    mean: f64,
}

view!(Mean, "mean");

impl Project<AccountEvent> for Mean {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        match &**event {
            AccountEvent::Noted { .. } => row.mean = f64::NAN,
            _ => row.mean += 1.0,
        }
        Ok(())
    }
}

pub(crate) async fn a_row_that_becomes_nan_is_a_dead_letter() {
    only_alice_is_dead::<Mean>(&store().await, "not read back as it was written").await;
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Rate {
    rate: Option<f64>,
    note: Option<Option<u8>>,
}

view!(Rate, "rate");

impl Project<AccountEvent> for Rate {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        match &**event {
            AccountEvent::Noted { .. } => row.rate = Some(f64::INFINITY),
            AccountEvent::Deposited { cents: 5 } => row.note = Some(Some(1)),
            _ => *row.rate.get_or_insert(0.0) += 1.0,
        }
        Ok(())
    }
}

pub(crate) async fn a_row_without_a_json_form_is_a_dead_letter() {
    only_alice_is_dead::<Rate>(&store().await, "`rate` is inf, which JSON has no form").await;
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Grid {
    cells: BTreeMap<(u8, u8), u32>,
}

view!(Grid, "grid");

impl Project<AccountEvent> for Grid {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        if let AccountEvent::Noted { .. } = &**event {
            row.cells.insert((1, 2), 3);
        }
        Ok(())
    }
}

pub(crate) async fn a_row_that_cannot_be_written_is_a_dead_letter() {
    only_alice_is_dead::<Grid>(&store().await, "cannot be written").await;
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Skipping {
    events: u8,
    #[serde(skip_serializing_if = "is_set")]
    set: bool,
}

fn is_set(set: &bool) -> bool {
    *set
}

view!(Skipping, "skipping");

impl Project<AccountEvent> for Skipping {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.events += 1;
        row.set |= matches!(&**event, AccountEvent::Noted { .. });
        Ok(())
    }
}

pub(crate) async fn a_field_that_is_written_and_not_read_is_named() {
    only_alice_is_dead::<Skipping>(&store().await, "missing field `set`").await;
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Halved {
    #[serde(serialize_with = "half")]
    cents: i64,
}

fn half<S: Serializer>(cents: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(cents / 2)
}

view!(Halved, "halved");

impl Project<AccountEvent> for Halved {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        if let AccountEvent::Noted { .. } = &**event {
            row.cents = 10;
        }
        Ok(())
    }
}

pub(crate) async fn a_row_that_reads_back_otherwise_is_a_dead_letter() {
    only_alice_is_dead::<Halved>(&store().await, "field `cents` is 5 and 2").await;
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "texts", events(AccountEvent), crate = "annals_projections")]
struct Texts {
    #[view(index)]
    text: String,
}

impl Project<AccountEvent> for Texts {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        if row.text.is_empty() {
            row.text = "x".repeat(1_024);
        }
        if let AccountEvent::Noted { .. } = &**event {
            row.text.push('x');
        }
        Ok(())
    }
}

pub(crate) async fn an_index_entry_too_long_is_a_dead_letter() {
    let reason = "its entry in index `text` has 1025 bytes, at most 1024 are possible";
    only_alice_is_dead::<Texts>(&store().await, reason).await;
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Indexed {
    events: u8,
    bad: bool,
}

impl View for Indexed {
    const NAME: &'static str = "indexed";
    const INDEXES: &'static [&'static str] = &["events"];
    type Key = String;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }

    fn indexed(&self) -> Vec<String> {
        assert!(!self.bad, "an index that panics");
        vec![self.events.to_string()]
    }
}

impl Project<AccountEvent> for Indexed {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.events += 1;
        row.bad |= matches!(&**event, AccountEvent::Noted { .. });
        Ok(())
    }
}

pub(crate) async fn an_index_that_panics_is_a_dead_letter() {
    only_alice_is_dead::<Indexed>(&store().await, "an index that panics").await;
}

pub(crate) async fn an_inline_index_that_panics_refuses_no_command() {
    let store = store().await;
    let setup = ViewSetup::<Indexed>::new().options(options()).inline();
    let db = Annals::on(store.handle())
        .with(setup)
        .start()
        .await
        .unwrap();
    happens(&db, "alice", noted("bad")).await;
    happens(&db, "alice", deposited(1)).await;
    let done = happens(&db, "bob", deposited(1)).await;
    let view = db.view::<Indexed>();
    view.wait_for(&done, Duration::from_secs(30)).await.unwrap();
    assert_eq!(
        view.get("bob").await.unwrap().map(|row| row.events),
        Some(1)
    );
    let keys = view.dead_letter_keys(None, 10).await.unwrap();
    assert_eq!((keys.len(), &*keys[0].key), (1, "alice"));
    assert!(keys[0].reason.contains("an index that panics"), "{keys:?}");
    db.stop().await;
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Panicky {
    bad: bool,
}

impl Serialize for Panicky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(!self.bad, "a serializer that panics");
        BTreeMap::from([("bad", self.bad)]).serialize(serializer)
    }
}

view!(Panicky, "panicky");

impl Project<AccountEvent> for Panicky {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.bad |= matches!(&**event, AccountEvent::Noted { .. });
        Ok(())
    }
}

pub(crate) async fn a_serializer_that_panics_is_a_dead_letter() {
    only_alice_is_dead::<Panicky>(&store().await, "a serializer that panics").await;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct NoDefault {
    events: u8,
}

thread_local! {
    static NO_DEFAULT: Cell<bool> = const { Cell::new(false) };
}

impl Default for NoDefault {
    fn default() -> NoDefault {
        assert!(!NO_DEFAULT.get(), "a default that panics");
        NoDefault { events: 0 }
    }
}

view!(NoDefault, "no-default");

impl Project<AccountEvent> for NoDefault {
    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.events += 1;
        Ok(())
    }
}

pub(crate) async fn a_default_that_panics_is_a_dead_letter() {
    let store = store().await;
    let db = start::<NoDefault>(&store).await;
    let done = happens(&db, "bob", deposited(1)).await;
    let view = db.view::<NoDefault>();
    view.wait_for(&done, Duration::from_secs(30)).await.unwrap();
    NO_DEFAULT.set(true);
    happens(&db, "alice", deposited(1)).await;
    let done = happens(&db, "bob", deposited(1)).await;
    let bob = view.get("bob").at_least(&done).await.unwrap();
    assert_eq!(bob, Some(NoDefault { events: 2 }));
    let keys = view.dead_letter_keys(None, 10).await.unwrap();
    assert_eq!((keys.len(), &*keys[0].key), (1, "alice"));
    assert!(keys[0].reason.contains("a default that panics"));
    NO_DEFAULT.set(false);
    db.stop().await;
}

/// Rows by the text of a note.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct ByText {
    events: u8,
}

view!(ByText, "by-text");

impl Project<AccountEvent> for ByText {
    fn keys(event: &Recorded<AccountEvent>) -> Result<Vec<String>, Poison> {
        Ok(match &**event {
            AccountEvent::Noted { text } => vec![text.clone()],
            _ => vec!["others".into()],
        })
    }

    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.events += 1;
        Ok(())
    }
}

pub(crate) async fn a_key_that_is_too_long_is_a_dead_letter() {
    let store = store().await;
    let db = start::<ByText>(&store).await;
    let bad = happens(&db, "alice", noted(&"k".repeat(256))).await;
    let done = happens(&db, "alice", noted("short")).await;
    let view = db.view::<ByText>();
    assert!(view.get("short").at_least(&done).await.unwrap().is_some());
    let keys = view.dead_letter_keys(None, 10).await.unwrap();
    assert_eq!(
        (keys.len(), keys[0].position),
        (1, bad.events()[0].position)
    );
    assert!(
        keys[0]
            .reason
            .contains("has 256 bytes, at most 255 are possible")
    );
    let skipped = view
        .skip(keys[0].key.clone(), keys[0].position, "no such key")
        .await;
    assert_eq!(skipped.unwrap().still, None);
    assert_eq!(view.dead_letter_keys(None, 10).await.unwrap(), []);
    db.stop().await;
}

/// Its rows can be read until the test says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Before {
    #[serde(deserialize_with = "readable")]
    events: u8,
}

thread_local! {
    static UNREADABLE: Cell<bool> = const { Cell::new(false) };
}

fn readable<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
    let events = u8::deserialize(from)?;
    match events == 99 && UNREADABLE.get() {
        true => Err(serde::de::Error::custom("nobody counts so far")),
        false => Ok(events),
    }
}

view!(Before, "counted-events");

impl Project<AccountEvent> for Before {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        match &**event {
            AccountEvent::Noted { .. } => row.events = 99,
            _ => row.events += 1,
        }
        Ok(())
    }
}

pub(crate) async fn an_unreadable_row_delays_its_key_only() {
    let store = store().await;
    let db = start::<Before>(&store).await;
    let done = happens(&db, "alice", noted("many")).await;
    let view = db.view::<Before>();
    view.wait_for(&done, Duration::from_secs(30)).await.unwrap();
    db.stop().await;

    UNREADABLE.set(true);
    let db = start::<Before>(&store).await;
    happens(&db, "alice", deposited(1)).await;
    let done = happens(&db, "bob", deposited(1)).await;
    let view = db.view::<Before>();
    assert!(view.get("bob").at_least(&done).await.unwrap().is_some());
    let keys = view.dead_letter_keys(None, 10).await.unwrap();
    assert_eq!((keys.len(), &*keys[0].key), (1, "alice"));
    for text in [
        keys[0].reason.clone(),
        view.get("alice").await.unwrap_err().to_string(),
    ] {
        assert!(
            text.contains("cannot be read: nobody counts so far"),
            "{text}"
        );
        assert!(text.contains("raise the `version`"), "{text}");
    }
    db.stop().await;
    UNREADABLE.set(false);
}

pub(crate) async fn after_a_stop_waiting_ends_at_once() {
    let store = store().await;
    let db = start::<Before>(&store).await;
    let done = happens(&db, "alice", deposited(1)).await;
    let view = db.view::<Before>();
    view.wait_for(&done, Duration::from_secs(30)).await.unwrap();
    let other = db.clone();
    tokio::join!(db.stop(), other.stop());
    let done = happens(&db, "alice", deposited(1)).await;
    let waited = view
        .get("alice")
        .at_least(&done)
        .within(Duration::MAX)
        .await;
    assert!(
        matches!(waited, Err(ViewError::Stopped { .. })),
        "{waited:?}"
    );
    let building = db.rebuild::<Before>().begin().await.unwrap();
    assert!(building.finished(|_| ()).await.is_err());
    db.stop().await;
}

pub(crate) async fn two_hundred_decisions_at_once_all_take_effect() {
    let store = store().await;
    let db = start::<Mean>(&store).await;
    let mut done = None;
    for account in 0..200 {
        done = Some(happens(&db, &account.to_string(), noted("bad")).await);
    }
    let view = db.view::<Mean>();
    view.wait_for(&done.unwrap(), Duration::from_secs(30))
        .await
        .unwrap();
    let keys = view.dead_letter_keys(None, 1_000).await.unwrap();
    assert_eq!(keys.len(), 200);
    let skips = keys.into_iter().map(|key| {
        let view = view.clone();
        tokio::spawn(async move { view.skip(key.key, key.position, "all of them").await })
    });
    for skip in skips.collect::<Vec<_>>() {
        assert_eq!(skip.await.unwrap().unwrap().events, 1);
    }
    assert_eq!(view.dead_letter_keys(None, 10).await.unwrap(), []);
    assert!(!matches!(
        db.status()[0].slots[0].state,
        SlotState::Stopped { .. }
    ));
    db.stop().await;
}

pub(crate) async fn a_past_that_the_log_has_lost_is_an_error() {
    let views = Arc::new(MemoryStore::new());
    let gateway = Gateway::default();
    let follow = async |log: &Arc<MemoryStore>| {
        Annals::on(Arc::clone(log) as _)
            .with(ViewSetup::<Mean>::new().options(options()))
            .with(texts(&gateway))
            .views_in(Arc::clone(&views) as _)
            .start_in_background()
            .await
            .unwrap()
    };
    let log = Arc::new(MemoryStore::new());
    let db = follow(&log).await;
    let mut done = None;
    for _ in 0..10 {
        done = Some(happens(&db, "alice", deposited(1)).await);
    }
    let view = db.view::<Mean>();
    let done = done.unwrap();
    view.wait_for(&done, Duration::from_secs(30)).await.unwrap();
    settled(&db, &done).await;
    db.stop().await;

    // The log is restored to its first five events, and one more is appended.
    log.rewind(Position::new(5));
    let db = follow(&log).await;
    let done = happens(&db, "alice", deposited(1)).await;
    let read = db.view::<Mean>().get("alice").at_least(&done).await;
    assert!(
        matches!(&read, Err(ViewError::Stopped { reason }) if reason.contains("restored")),
        "{read:?}"
    );
    let reactor = db.reactor::<gateway::Texts>();
    let waited = reactor.wait_for(&done, Duration::from_secs(30)).await;
    assert!(
        matches!(&waited, Err(ViewError::Stopped { reason }) if reason.contains("restored")),
        "{waited:?}"
    );
    db.stop().await;

    // The ways that both name.
    let says = "give the reactor `texts` another name, and it begins at the end of this log";
    assert!(waited.unwrap_err().to_string().contains(says));
    let db = Annals::on(Arc::clone(&log) as _)
        .with(ReactorSetup::of(Again(gateway.clone())))
        .views_in(Arc::clone(&views) as _)
        .start()
        .await
        .unwrap();
    let done = happens(&db, "bob", deposited(7)).await;
    let reactor = db.reactor::<Again>();
    reactor
        .wait_for(&done, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(gateway.sent_to("bob"), [7]);
    assert_eq!(gateway.sent_to("alice"), [1; 10]);
    db.stop().await;
}

/// The reactor under another name.
struct Again(Gateway);

impl Reactor for Again {
    const NAME: &'static str = "texts-again";
    type Event = AccountEvent;

    async fn react(
        &self,
        event: &Recorded<AccountEvent>,
        request: &Request,
    ) -> Result<(), ReactError> {
        gateway::Texts(self.0.clone()).react(event, request).await
    }
}
