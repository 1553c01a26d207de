//! Followers that had not read what was archived stop and name it, unless they do without it.

use std::time::Duration;

use annals_core::{Annals, CommandError, Committed, Partition, Position, Recorded, Token};
use annals_macros::View;
use annals_projections::{
    Options, Poison, Program, Project, ReadModels, Row, ViewError, ViewSetup, With,
};
use serde::{Deserialize, Serialize};

use super::bank::{Account, AccountEvent, Balance, deposited, happens, noted, options};
use super::gateway::{Gateway, TIMEOUT, Texts, reacting, settled, texts};
use super::shop::{Fulfilment, Order, OrderEvent, Shop, fulfilments};
use super::test_store::{TestStore, store};

/// Deposits 1 and 2 for alice while nothing follows the log, and archives them.
async fn archived(store: &TestStore) -> Committed {
    let db = Annals::on(store.handle());
    for cents in 1..=2 {
        happens(&db, "alice", deposited(cents)).await;
    }
    let summary = |_: &Account| Ok::<_, String>(noted("two deposits"));
    let alice = db.aggregate::<Account>("alice");
    alice.archive_unread(summary).await.unwrap()
}

fn check_stopped(error: &ViewError, says: &[&str]) {
    assert!(matches!(error, ViewError::Stopped { .. }), "{error}");
    for says in says {
        assert!(error.to_string().contains(says), "{error}");
    }
}

pub(crate) async fn a_reactor_stops_at_unread_archived_events() {
    let store = store().await;
    let gateway = Gateway::default();
    reacting(&store, texts(&gateway)).await.stop().await;
    let done = archived(&store).await;
    let db = reacting(&store, texts(&gateway)).await;
    let waited = db.reactor::<Texts>().wait_for(&done, TIMEOUT).await;
    let says = [
        "`reactor/texts` has not read position 1 to 2 of `account-alice`",
        "skip_to",
    ];
    check_stopped(&waited.unwrap_err(), &says);
    db.stop().await;

    let db = reacting(&store, texts(&gateway).skip_archived()).await;
    let done = happens(&db, "alice", deposited(4)).await;
    settled(&db, &done).await;
    assert_eq!(gateway.sent_to("alice"), [4]);
    db.stop().await;
}

pub(crate) async fn a_reactor_is_called_for_what_precedes_archived_events() {
    let store = store().await;
    let gateway = Gateway::default();
    reacting(&store, texts(&gateway)).await.stop().await;
    let writer = Annals::on(store.handle());
    happens(&writer, "bob", deposited(7)).await;
    archived(&store).await;
    let done = happens(&writer, "carol", deposited(8)).await;
    let db = reacting(&store, texts(&gateway)).await;
    let reactor = db.reactor::<Texts>();
    let waited = reactor.wait_for(&done, TIMEOUT).await;
    let says = ["`reactor/texts` has not read position 2 to 3 of `account-alice`"];
    check_stopped(&waited.unwrap_err(), &says);
    assert_eq!(gateway.sent_to("bob"), [7]);
    assert!(gateway.sent_to("carol").is_empty());

    // The way out that it names loses no call.
    let after = reactor.skip_to(3).await.unwrap();
    assert_eq!(after.position(Partition(0)), Position::new(3));
    settled(&db, &done).await;
    assert_eq!(gateway.sent_to("bob"), [7]);
    assert_eq!(gateway.sent_to("carol"), [8]);
    db.stop().await;
}

pub(crate) async fn archiving_waits_for_a_reactor_that_repeats_calls() {
    let store = store().await;
    let gateway = Gateway::default();
    let db = reacting(&store, texts(&gateway)).await;
    let done = happens(&db, "alice", deposited(1)).await;
    settled(&db, &done).await;
    let reactor = db.reactor::<Texts>();
    db.stop().await;
    reactor.repeat_from(Position::START).await.unwrap();
    let writer = Annals::on(store.handle());
    let alice = writer.aggregate::<Account>("alice");
    let summary = |_: &Account| Ok::<_, String>(noted("a deposit"));
    let refused = alice.archive(summary).await.unwrap_err();
    let CommandError::NotReadByAll { followers, .. } = &refused else {
        panic!("{refused}");
    };
    assert_eq!(followers[0].position, Position::START);
    let db = reacting(&store, texts(&gateway)).await;
    settled(&db, &done).await;
    alice.archive(summary).await.unwrap();
    assert_eq!(gateway.sent_to("alice"), [1, 1]);
    db.stop().await;
}

pub(crate) async fn a_process_stops_at_unread_archived_events() {
    let shop = Shop::new().await;
    shop.program().await.stop().await;
    shop.placed("7").await;
    let order = shop.db.aggregate::<Order>("7");
    let extended = |_: &Order| Ok::<_, String>(OrderEvent::Extended);
    order.archive_unread(extended).await.unwrap();
    let db = shop.program().await;
    let head = shop.store.head(Partition(0)).await.unwrap().visible;
    let token = Token::new(shop.store.id()).with(Partition(0), head);
    let waited = db.process::<Fulfilment>().wait_for(token, TIMEOUT).await;
    let says = ["`process/fulfilment` has not read position 1 of `order-7`"];
    check_stopped(&waited.unwrap_err(), &says);
    db.stop().await;

    let db = Annals::on(shop.store.handle()).with_clock(std::sync::Arc::clone(&shop.clock) as _);
    let going_on = fulfilments().skip_archived();
    let db = db.with(going_on).start().await.unwrap();
    shop.placed("8").await;
    shop.until("fulfilment-8", "fulfilment.started").await;
    db.stop().await;
}

async fn balances(store: &TestStore, setup: ViewSetup<Balance>, options: Options) -> Program {
    let db = Annals::on(store.handle()).with(setup.options(options));
    db.start().await.unwrap()
}

pub(crate) async fn an_inline_view_refuses_rows_that_lack_archived_events() {
    let store = store().await;
    let inline = || ViewSetup::<Balance>::new().inline();
    let db = balances(&store, inline(), options()).await;
    happens(&db, "bob", deposited(8)).await;
    db.stop().await;
    let done = archived(&store).await;
    let db = balances(&store, inline(), options()).await;
    let view = db.view::<Balance>();
    let error = view.get("alice").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the answer needs position 2 to 3 of `account-alice`, and that was archived: ask about a \
         later moment"
    );
    let waited = view.wait_for(&done, Duration::from_secs(30)).await;
    let says = ["view `balances` has not read position 2 to 3 of `account-alice`"];
    check_stopped(&waited.unwrap_err(), &says);
    // Rows that lack nothing are read as ever.
    assert_eq!(view.get("bob").await.unwrap().unwrap().cents, 8);
    db.stop().await;
}

/// What was deposited to each account, of which no past is kept. A note `poison` cannot be folded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "deposits",
    version = 1,
    events(AccountEvent),
    crate = "annals_projections"
)]
struct Deposits {
    cents: i64,
}

impl Project<AccountEvent> for Deposits {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        match &event.event {
            AccountEvent::Deposited { cents } => row.cents += cents,
            AccountEvent::Noted { text } if text == "poison" => {
                return Err(Poison::new("a poisoned note"));
            }
            _ => {}
        }
        Ok(())
    }
}

pub(crate) async fn a_command_writes_no_inline_row_that_lacks_archived_events() {
    let store = store().await;
    let setup = ViewSetup::<Deposits>::new().inline().options(options());
    let db = Annals::on(store.handle()).with(setup);
    let db = db.start().await.unwrap();
    happens(&db, "alice", deposited(1)).await;
    happens(&db, "alice", noted("poison")).await;
    let done = happens(&db, "alice", deposited(2)).await;
    let view = db.view::<Deposits>();
    view.wait_for(&done, Duration::from_secs(30)).await.unwrap();
    // What is a dead letter, or waits behind one, was read, so archiving is granted.
    let alice = db.aggregate::<Account>("alice");
    let summary = |_: &Account| Ok::<_, String>(noted("two deposits and a note"));
    alice.archive(summary).await.unwrap();
    let done = happens(&db, "alice", deposited(4)).await;
    view.wait_for(&done, Duration::from_secs(30)).await.unwrap();
    let error = view.get("alice").await.unwrap_err();
    assert!(matches!(error, ViewError::Archived { .. }), "{error}");
    let kept = view.many(["alice"]).await.unwrap();
    assert_eq!(kept, [Some(Deposits { cents: 1 })]);
    db.stop().await;
}

pub(crate) async fn a_view_that_skips_archived_events_folds_the_others() {
    let store = store().await;
    let setup = || ViewSetup::<Balance>::new();
    balances(&store, setup(), options()).await.stop().await;
    archived(&store).await;
    let db = balances(&store, setup(), options().skip_archived()).await;
    let done = happens(&db, "alice", deposited(4)).await;
    let view = db.view::<Balance>();
    for _ in 0..2 {
        let row = view.get("alice").at_least(&done).await.unwrap().unwrap();
        assert_eq!((row.cents, row.events), (4, 2));
        let row = view.get("alice").as_of(done.events()[0].position).await;
        assert_eq!(row.unwrap().unwrap().cents, 4);
        let building = db.rebuild::<Balance>().begin().await.unwrap();
        building.finished(|_| ()).await.unwrap();
    }
    db.stop().await;
}

pub(crate) async fn archiving_waits_for_no_reactor_of_other_events() {
    let shop = Shop::new().await;
    let gateway = Gateway::default();
    reacting(&shop.store, texts(&gateway)).await.stop().await;
    shop.placed("7").await;
    let order = shop.db.aggregate::<Order>("7");
    let extended = |_: &Order| Ok::<_, String>(OrderEvent::Extended);
    order.archive(extended).await.unwrap();
    // It waits where the reactor would have read.
    let alice = shop.db.aggregate::<Account>("alice");
    let deposits = |_: &Account| Ok::<_, String>(deposited(1));
    alice.run(deposits).await.unwrap();
    let refused = alice.archive(deposits).await.unwrap_err();
    let CommandError::NotReadByAll { followers, .. } = &refused else {
        panic!("{refused}");
    };
    assert_eq!(followers[0].name, "$reactor/texts");
    // It is the same reactor as before, and goes on from where it was.
    let db = reacting(&shop.store, texts(&gateway)).await;
    let done = happens(&db, "bob", deposited(4)).await;
    settled(&db, &done).await;
    assert_eq!(gateway.sent_to("bob"), [4]);
    db.stop().await;
}
