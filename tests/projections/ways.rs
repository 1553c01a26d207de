//! Each way out that the text of an error names leads out.

use std::fmt;
use std::sync::Arc;

use annals_core::{
    Annals, Append, CommandError, NewEvent, Partition, Position, Recorded, StreamId, Token,
};
use annals_macros::View;
use annals_projections::{
    Handlers, Poison, Project, ReactError, ReactorHandle, ReadModels, Row, StartError, View,
    ViewError, ViewSetup, With,
};
use serde::{Deserialize, Serialize};

use super::bank::{Account, AccountEvent, Balance, deposited, happens, noted, options, program};
use super::gateway::{Gateway, TIMEOUT, Texts, reacting, settled, texts};
use super::test_store::{TestStore, store};

#[track_caller]
fn says(error: &impl fmt::Display, ways: &[&str]) {
    let text = error.to_string();
    for way in ways {
        assert!(text.contains(way), "`{way}` is not in: {text}");
    }
}

/// An event that no view can read.
async fn unreadable(store: &TestStore) -> Position {
    let stream = StreamId::new("account-alice").unwrap();
    let event = NewEvent::json("account.deposited", r#"{"cents":"many"}"#);
    let append = Append::new(stream, [event]);
    store.append(append).await.unwrap().last().position
}

async fn head(store: &TestStore) -> Token {
    let head = store.head(Partition(0)).await.unwrap().visible;
    Token::new(store.id()).with(Partition(0), head)
}

fn balance(cents: i64, events: u64) -> Option<Balance> {
    Some(Balance { cents, events })
}

pub(crate) async fn what_stops_a_start_is_skipped_in_the_background() {
    let store = store().await;
    happens(&Annals::on(store.handle()), "alice", deposited(1)).await;
    let bad = unreadable(&store).await;
    let setup = || Annals::on(store.handle()).with(Balance::projection().options(options()));
    let error = setup().start().await.unwrap_err();
    says(
        &error,
        &[
            "so no later event is folded",
            &format!("skip the event at {bad} of view `balances` with `skip_event`"),
            "`start_in_background`",
        ],
    );

    let db = setup().start_in_background().await.unwrap();
    let view = db.view::<Balance>();
    view.skip_event(bad, "sent by a broken client")
        .await
        .unwrap();
    view.wait_for(head(&store).await, TIMEOUT).await.unwrap();
    db.stop().await;
    let db = setup().start().await.unwrap();
    let row = db.view::<Balance>().get("alice").await.unwrap();
    assert_eq!(row, balance(1, 1));
    db.stop().await;
}

pub(crate) async fn what_stops_a_reactor_is_skipped() {
    let store = store().await;
    let gateway = Gateway::default();
    let db = reacting(&store, texts(&gateway)).await;
    let bad = unreadable(&store).await;
    let done = happens(&db, "bob", deposited(1)).await;
    let reactor = db.reactor::<Texts>();
    let error = reactor.wait_for(&done, TIMEOUT).await.unwrap_err();
    let way = format!("skip the event at {bad} with `skip_event`");
    says(&error, &["so nothing is called for later events", &way]);
    reactor
        .skip_event(bad, "sent by a broken client")
        .await
        .unwrap();
    settled(&db, &done).await;
    assert_eq!(gateway.sent_to("bob"), [1]);
    db.stop().await;
}

pub(crate) async fn a_stopped_program_sees_again_after_a_start() {
    let store = store().await;
    let db = program(&store).await;
    db.stop().await;
    let done = happens(&db, "alice", deposited(1)).await;
    let view = db.view::<Balance>();
    let error = view.get("alice").at_least(&done).await.unwrap_err();
    says(&error, &["the program was stopped; start it again"]);
    let db = program(&store).await;
    let row = db.view::<Balance>().get("alice").at_least(&done).await;
    assert_eq!(row.unwrap(), balance(1, 1));
    db.stop().await;
}

pub(crate) async fn after_history_is_forgotten_later_moments_answer() {
    let store = store().await;
    let db = program(&store).await;
    for cents in 1..=4 {
        let done = happens(&db, "alice", deposited(cents)).await;
        db.view::<Balance>().wait_for(&done, TIMEOUT).await.unwrap();
    }
    // In the one that serves, and in the one that is kept.
    let building = db.rebuild::<Balance>().begin().await.unwrap();
    building.finished(|_| ()).await.unwrap();
    let view = db.view::<Balance>();
    assert_eq!(view.get("alice").as_of(2).await.unwrap(), balance(3, 2));
    db.rebuild::<Balance>().forget_history(3).await.unwrap();
    for _ in 0..2 {
        let error = view.get("alice").as_of(2).await.unwrap_err();
        says(
            &error,
            &["the past is kept since position 3 only; ask about that or later"],
        );
        let ViewError::BeforeHistory { since } = error else {
            panic!("{error:?}");
        };
        assert_eq!(view.get("alice").as_of(since).await.unwrap(), balance(6, 3));
        db.rebuild::<Balance>().roll_back().await.unwrap();
    }
    // Beyond the head is the head.
    db.rebuild::<Balance>().forget_history(99).await.unwrap();
    assert_eq!(view.get("alice").as_of(4).await.unwrap(), balance(10, 4));
    assert!(view.get("alice").as_of(3).await.is_err());
    db.stop().await;
}

macro_rules! counted {
    ($name:ident, $($view:tt)*) => {
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
        #[view($($view)*, version = 1, crate = "annals_projections")]
        struct $name {
            events: u64,
        }

        impl Project<AccountEvent> for $name {
            fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
                row.events += 1;
                Ok(())
            }
        }
    };
}

counted!(Present, name = "present", events(AccountEvent));
counted!(Versions, name = "versions", events(AccountEvent), history);
counted!(
    Dated,
    name = "dated",
    events(AccountEvent),
    history(bitemporal)
);

pub(crate) async fn a_declared_history_answers_what_was_refused() {
    let store = store().await;
    let db = Annals::on(store.handle());
    let db = db.with(Present::projection()).with(Versions::projection());
    let db = db.with(Dated::projection()).start().await.unwrap();
    happens(&db, "alice", deposited(1)).await;
    let done = happens(&db, "alice", deposited(2)).await;
    let [first, now] = [1, 2].map(Some);
    let soon = "2100-01-01T00:00:00Z";

    let view = db.view::<Present>();
    view.wait_for(&done, TIMEOUT).await.unwrap();
    let error = view.get("alice").as_of(1).await.unwrap_err();
    says(
        &error,
        &["view `present` keeps no past; declare it with `history`"],
    );
    let view = db.view::<Versions>();
    view.wait_for(&done, TIMEOUT).await.unwrap();
    let row = view.get("alice").as_of(1).await.unwrap();
    assert_eq!(row.map(|row| row.events), first);

    let error = view.get("alice").valid_at(soon).await.unwrap_err();
    says(
        &error,
        &[
            "does not keep which events touched a row",
            "`history(bitemporal)`",
        ],
    );
    let view = db.view::<Dated>();
    view.wait_for(&done, TIMEOUT).await.unwrap();
    let row = view.get("alice").valid_at(soon).await.unwrap();
    assert_eq!(row.map(|row| row.events), now);
    db.stop().await;
}

/// Archives what happened to alice, also where it was not read.
async fn archive(db: &Annals) {
    let summary = |_: &Account| Ok::<_, String>(noted("archived"));
    let alice = db.aggregate::<Account>("alice");
    alice.archive_unread(summary).await.unwrap();
}

pub(crate) async fn a_dead_letter_of_an_archived_event_is_skipped() {
    let store = store().await;
    let db = program(&store).await;
    let bad = happens(&db, "alice", noted("poison")).await;
    let view = db.view::<Balance>();
    view.wait_for(&bad, TIMEOUT).await.unwrap();
    archive(&db).await;
    let settled = view.retry("alice").await.unwrap();
    let still = settled.still.unwrap();
    says(
        &still.reason.unwrap_or_default(),
        &["the event is not in the log any more; skip it, or rebuild the view"],
    );
    let position = bad.events()[0].position;
    view.skip("alice", position, "archived").await.unwrap();
    assert_eq!(view.dead_letter_keys(None, 9).await.unwrap(), []);
    assert_eq!(view.get("alice").await.unwrap(), balance(0, 1));
    db.stop().await;
}

/// The archived dead letter of the reactor was tried again, and says what is to be done.
async fn says_what_to_do(reactor: &ReactorHandle, key: &str) {
    let way = "the event was archived; discard it, or skip it";
    let said = async {
        loop {
            let letters = reactor.dead_letters().events(key, None, 1).await.unwrap();
            if letters[0].reason.as_deref() == Some(way) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, said).await.unwrap();
}

pub(crate) async fn a_reactors_archived_dead_letter_is_discarded() {
    let key = "account-alice";
    for is_discarded in [true, false] {
        let store = store().await;
        let gateway = Gateway::default();
        gateway.refuse("alice", ReactError::permanent("an unknown number"));
        let db = reacting(&store, texts(&gateway)).await;
        let bad = happens(&db, "alice", deposited(1)).await;
        settled(&db, &bad).await;
        archive(&db).await;
        gateway.accept("alice");
        let reactor = db.reactor::<Texts>();
        reactor.retry(key).await.unwrap();
        says_what_to_do(&reactor, key).await;
        if is_discarded {
            // The account is no key of this reactor: its keys are the names of streams.
            let error = reactor.discard("alice", "archived").await.unwrap_err();
            says(
                &error,
                &["reactor `texts` has no dead letters of key `alice`"],
            );
            reactor.discard(key, "archived").await.unwrap();
        } else {
            let position = bad.events()[0].position;
            reactor.skip(key, position, "archived").await.unwrap();
            reactor.retry(key).await.unwrap();
        }
        let done = happens(&db, "alice", deposited(2)).await;
        gateway.sends(1).await;
        settled(&db, &done).await;
        assert_eq!(gateway.sent_to("alice"), [2]);
        assert_eq!(reactor.dead_letters().all(None, 9).await.unwrap(), []);
        db.stop().await;
    }
}

pub(crate) async fn a_retry_forgets_the_causes_of_archived_events_elsewhere() {
    let store = store().await;
    let gateway = Gateway::default();
    gateway.refuse("alice", ReactError::permanent("no number of Grace"));
    let views: Arc<dyn annals_core::ViewStore> = Arc::new(annals_core::MemoryStore::new());
    let db = Annals::on(store.handle()).with(Balance::projection().options(options()));
    let db = db.with(texts(&gateway)).views_in(views);
    let db = db.start().await.unwrap();
    happens(&db, "alice", deposited(1)).await;
    let done = happens(&db, "alice", noted("poison")).await;
    let view = db.view::<Balance>();
    let reactor = db.reactor::<Texts>();
    view.wait_for(&done, TIMEOUT).await.unwrap();
    settled(&db, &done).await;
    archive(&db).await;
    let causes = async || {
        let of_view = view.dead_letters().all(None, 9).await.unwrap();
        let of_reactor = reactor.dead_letters().all(None, 9).await.unwrap();
        let all = of_view.into_iter().chain(of_reactor);
        all.filter_map(|letter| letter.reason).collect::<Vec<_>>()
    };
    // Archiving knows the store of the log alone.
    assert_eq!(causes().await, ["a poisoned note", "no number of Grace"]);
    view.retry_all().await.unwrap();
    reactor.retry_all().await.unwrap();
    says_what_to_do(&reactor, "account-alice").await;
    assert_eq!(
        causes().await,
        [
            "the event is not in the log any more; skip it, or rebuild the view",
            "the event was archived; discard it, or skip it"
        ]
    );
    db.stop().await;
}

/// As another program declares it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "balances",
    version = 2,
    events(AccountEvent),
    crate = "annals_projections"
)]
struct LaterBalance {
    events: u64,
}

impl Project<AccountEvent> for LaterBalance {
    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.events += 1;
        Ok(())
    }
}

pub(crate) async fn generations_of_older_programs_are_dropped_before_archiving() {
    let store = store().await;
    program(&store).await.stop().await;
    let older = store.views().generations("balances").await.unwrap();
    let later = LaterBalance::projection().options(options());
    let db = Annals::on(store.handle()).with(later);
    let db = db.start().await.unwrap();
    let done = happens(&db, "alice", deposited(1)).await;
    let alice = db.aggregate::<Account>("alice");
    let summary = |_: &Account| Ok::<_, String>(noted("archived"));
    let error = alice.archive(summary).await.unwrap_err();
    let way = "drop generations of older programs with `drop_others`";
    says(&error, &[way, &format!("in generation {}", older[0].id)]);
    let CommandError::NotReadByAll { followers, .. } = error else {
        panic!("{error:?}");
    };
    let ids: Vec<_> = followers.iter().map(|of| of.generation).collect();
    assert_eq!(ids, [older[0].id]);
    let error = db.drop_follower("balances").await.unwrap_err();
    let way = "drop the generations that it does not follow with `drop_others`";
    says(&error, &[way]);
    let rebuild = db.rebuild::<LaterBalance>();
    rebuild.drop_others().await.unwrap();
    alice.archive(summary).await.unwrap();
    let view = db.view::<LaterBalance>();
    let row = view.get("alice").at_least(&done).await.unwrap();
    assert!(row.is_some());
    db.stop().await;
}

pub(crate) async fn what_no_program_follows_is_dropped_before_archiving() {
    let store = store().await;
    let gateway = Gateway::default();
    let db = program(&store).await;
    let done = happens(&db, "alice", deposited(1)).await;
    db.view::<Balance>().wait_for(&done, TIMEOUT).await.unwrap();
    let error = db.drop_follower("balances").await.unwrap_err();
    says(
        &error,
        &["`balances` is followed by `", "`; stop that program first"],
    );
    db.stop().await;
    reacting(&store, texts(&gateway)).await.stop().await;

    let db = Annals::on(store.handle());
    happens(&db, "alice", deposited(2)).await;
    let alice = db.aggregate::<Account>("alice");
    let summary = |_: &Account| Ok::<_, String>(noted("archived"));
    let error = alice.archive(summary).await.unwrap_err();
    says(
        &error,
        &["drop what no program has any more with `drop_follower`"],
    );
    let CommandError::NotReadByAll { followers, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(followers.len(), 2, "{followers:?}");
    for follower in followers {
        db.drop_follower(&follower.name).await.unwrap();
    }
    alice.archive(summary).await.unwrap();
    let unknown = db.drop_follower("nothing").await.unwrap_err();
    says(&unknown, &["nothing called `nothing` follows this log"]);

    // Followers that have them again begin again: the view with what is left, the reactor with what
    // comes.
    let view = Balance::projection().options(options().skip_archived());
    let db = db.with(view).with(texts(&gateway)).start().await.unwrap();
    let done = happens(&db, "bob", deposited(3)).await;
    let row = db
        .view::<Balance>()
        .get("bob")
        .at_least(&done)
        .await
        .unwrap();
    assert_eq!(row, balance(3, 1));
    settled(&db, &done).await;
    assert_eq!(gateway.sent_to("bob"), [3]);
    assert_eq!(gateway.sent_to("alice"), [0; 0]);
    db.stop().await;
}

pub(crate) async fn a_reactor_at_archived_events_continues_after_them() {
    let store = store().await;
    let gateway = Gateway::default();
    reacting(&store, texts(&gateway)).await.stop().await;
    let db = Annals::on(store.handle());
    let done = happens(&db, "alice", deposited(1)).await;
    archive(&db).await;
    let db = reacting(&store, texts(&gateway)).await;
    let reactor = db.reactor::<Texts>();
    let error = reactor.wait_for(&done, TIMEOUT).await.unwrap_err();
    says(
        &error,
        &["`skip_to` a position after it, or do without with `skip_archived`"],
    );
    let position = done.events()[0].position;
    reactor.skip_to(position).await.unwrap();
    let done = happens(&db, "alice", deposited(2)).await;
    settled(&db, &done).await;
    assert_eq!(gateway.sent_to("alice"), [2]);
    db.stop().await;
}

pub(crate) async fn a_log_without_read_models_takes_them_elsewhere() {
    let store = store().await;
    happens(&Annals::on(store.handle()), "alice", deposited(1)).await;
    let log = || Annals::following(store.handle());
    let error = log().with(Balance::projection()).start().await.unwrap_err();
    says(
        &error,
        &["this store keeps no read models; name one that does with `views_in`"],
    );
    let views = Arc::new(annals_core::MemoryStore::new());
    let db = log().with(Balance::projection()).views_in(views);
    let db = db.start().await.unwrap();
    assert_eq!(
        db.view::<Balance>().get("alice").await.unwrap(),
        balance(1, 1)
    );
    db.stop().await;
}

pub(crate) async fn a_view_without_events_is_refused_by_name() {
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
    #[view(name = "idle", version = 1, key = String, crate = "annals_projections")]
    struct Idle {
        events: u64,
    }
    let store = store().await;
    let db = Annals::on(store.handle());
    let error = db.with(ViewSetup::<Idle>::new()).start().await.unwrap_err();
    assert!(matches!(error, StartError::NoEvents("idle")), "{error:?}");
    says(
        &error,
        &["name them with `events(…)`, or register the pipeline that writes it"],
    );
}

/// The derive refuses the name; who writes the trait by hand is refused at the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Disguised;

impl View for Disguised {
    const NAME: &'static str = "$reactor/texts";
    type Key = String;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }
}

impl Project<AccountEvent> for Disguised {
    fn on(_: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        Ok(())
    }
}

pub(crate) async fn a_view_under_the_name_of_a_reactor_is_refused() {
    let store = store().await;
    let gateway = Gateway::default();
    let db = Annals::on(store.handle()).with(ViewSetup::<Disguised>::new());
    let error = db.with(texts(&gateway)).start().await.unwrap_err();
    assert!(matches!(error, StartError::Reserved(_)), "{error:?}");
    says(
        &error,
        &[
            "view `$reactor/texts` begins with `$`",
            "give it another name",
        ],
    );
    let db = Annals::on(store.handle()).with(Present::projection());
    db.with(texts(&gateway)).start().await.unwrap().stop().await;
}

pub(crate) async fn archived_events_that_a_follower_lacks_require_a_rebuild() {
    let store = store().await;
    let views = Arc::new(annals_core::MemoryStore::new());
    let start = async || {
        let db = Annals::on(store.handle()).with(Balance::projection().options(options()));
        let db = db.views_in(Arc::clone(&views) as _);
        db.start_in_background().await.unwrap()
    };
    let db = start().await;
    let done = happens(&db, "alice", deposited(1)).await;
    db.view::<Balance>().wait_for(&done, TIMEOUT).await.unwrap();
    db.stop().await;
    // Its checkpoint is not in the store of the log, so archiving does not wait for it.
    happens(&db, "alice", deposited(2)).await;
    let alice = db.aggregate::<Account>("alice");
    let summary = |_: &Account| Ok::<_, String>(noted("archived"));
    alice.archive(summary).await.unwrap();
    let done = happens(&db, "bob", deposited(3)).await;

    let db = start().await;
    let view = db.view::<Balance>();
    let error = view.wait_for(&done, TIMEOUT).await.unwrap_err();
    assert!(matches!(error, ViewError::Stopped { .. }), "{error}");
    says(&error, &["position 2", "`Options::skip_archived`"]);
    assert_eq!(view.get("alice").await.unwrap(), balance(1, 1));
    db.stop().await;

    let rest = Balance::projection().options(options().skip_archived());
    let db = Annals::on(store.handle()).with(rest);
    let db = db.views_in(Arc::clone(&views) as _).start().await.unwrap();
    let view = db.view::<Balance>();
    view.wait_for(&done, TIMEOUT).await.unwrap();
    assert_eq!(view.get("bob").await.unwrap(), balance(3, 1));
    db.stop().await;
}
