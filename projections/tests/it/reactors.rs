//! Side effects: at least once, in order for each key, and never in a rebuild.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_core::{Annals, Committed, Partition, Position, Recorded};
use annals_projections::{
    Program, ReactError, Reactor, ReactorSetup, ReadModels, Request, View, With,
};
use tokio::sync::{Semaphore, watch};

use super::bank::{Account, AccountEvent, Balance, deposited, happens, noted, options};
use super::place::{Place, store};

const PATIENCE: Duration = Duration::from_secs(60);

/// What came out of the program: the account, the cents, and the idempotency key.
type Message = (String, i64, String);

/// A gateway that remembers what it was given. It holds back deposits of the account `slow` until
/// it is let go, and refuses those of the accounts that it refuses.
#[derive(Clone, Debug)]
struct Gateway {
    sent: Arc<watch::Sender<Vec<Message>>>,
    begun: Arc<watch::Sender<usize>>,
    slow: Arc<Semaphore>,
    refused: Arc<Mutex<BTreeMap<String, ReactError>>>,
}

impl Default for Gateway {
    fn default() -> Gateway {
        let slow = Arc::new(Semaphore::new(0));
        Gateway {
            sent: Arc::default(),
            begun: Arc::default(),
            slow,
            refused: Arc::default(),
        }
    }
}

impl Gateway {
    async fn sends(&self, count: usize) -> Vec<Message> {
        let mut sent = self.sent.subscribe();
        tokio::time::timeout(PATIENCE, sent.wait_for(|sent| sent.len() >= count))
            .await
            .unwrap()
            .unwrap()
            .clone()
    }

    fn sent(&self) -> Vec<Message> {
        self.sent.borrow().clone()
    }

    fn sent_to(&self, account: &str) -> Vec<i64> {
        self.sent
            .borrow()
            .iter()
            .filter(|(to, ..)| to == account)
            .map(|(_, cents, _)| *cents)
            .collect()
    }

    fn refuse(&self, account: &str, error: ReactError) {
        self.refused.lock().unwrap().insert(account.into(), error);
    }

    fn accept(&self, account: &str) {
        self.refused.lock().unwrap().remove(account);
    }
}

struct Texts(Gateway);

impl Reactor for Texts {
    const NAME: &'static str = "texts";
    type Event = AccountEvent;

    async fn react(
        &self,
        event: &Recorded<AccountEvent>,
        request: &Request,
    ) -> Result<(), ReactError> {
        let gateway = &self.0;
        let AccountEvent::Deposited { cents } = **event else {
            assert!(
                !matches!(&**event, AccountEvent::Noted { text } if text == "panic"),
                "a note that panics"
            );
            return Ok(());
        };
        let account = event.record.stream.id().to_owned();
        gateway.begun.send_modify(|begun| *begun += 1);
        if account == "slow" {
            gateway.slow.acquire().await.unwrap().forget();
        }
        let refused = gateway.refused.lock().unwrap().get(&account).cloned();
        if let Some(error) = refused {
            return Err(error);
        }
        tokio::task::yield_now().await;
        gateway
            .sent
            .send_modify(|sent| sent.push((account, cents, request.idempotency_key())));
        tokio::task::yield_now().await;
        Ok(())
    }
}

fn texts(gateway: &Gateway) -> ReactorSetup<Texts> {
    ReactorSetup::of(Texts(gateway.clone()))
        .lease(Duration::from_secs(3600))
        .attempts(3, Duration::from_millis(1))
}

async fn reacting(store: &Place, reaction: ReactorSetup<Texts>) -> Program {
    Annals::on(store.handle())
        .with(reaction)
        .start()
        .await
        .unwrap()
}

async fn settled(db: &Program, done: &Committed) {
    db.reactor::<Texts>()
        .wait_for(done, PATIENCE)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_slow_key_holds_up_nobody_else_and_keeps_its_order() {
    let store = store().await;
    let gateway = Gateway::default();
    let db = reacting(&store, texts(&gateway)).await;
    for cents in 1..=3 {
        happens(&db, "slow", deposited(cents)).await;
    }
    for cents in 1..=20 {
        happens(&db, "alice", deposited(cents)).await;
    }
    gateway.sends(20).await;
    assert_eq!(gateway.sent_to("alice"), (1..=20).collect::<Vec<_>>());
    assert!(gateway.sent_to("slow").is_empty());
    gateway.slow.add_permits(3);
    let done = happens(&db, "alice", deposited(21)).await;
    settled(&db, &done).await;
    assert_eq!(gateway.sent_to("slow"), [1, 2, 3]);
    assert_eq!(db.status()[0].to_string(), "$reactor/texts v1: up to date");
    db.stop().await;
}

#[tokio::test]
async fn what_is_settled_above_a_slow_event_is_not_repeated_after_a_restart() {
    let store = store().await;
    let gateway = Gateway::default();
    let first = reacting(&store, texts(&gateway).grace(Duration::ZERO)).await;
    happens(&first, "slow", deposited(1)).await;
    for cents in 1..=20 {
        happens(&first, "alice", deposited(cents)).await;
    }
    gateway.sends(20).await;
    first.stop().await;

    let second = reacting(&store, texts(&gateway)).await;
    gateway.slow.add_permits(1);
    let done = happens(&second, "alice", deposited(21)).await;
    settled(&second, &done).await;
    let alice = gateway.sent_to("alice");
    // The last one may have been on its way when the first program was stopped.
    assert!(alice.len() <= 22, "{alice:?}");
    assert_eq!(alice.iter().collect::<BTreeSet<_>>().len(), 21);
    assert_eq!(gateway.sent_to("slow"), [1]);
}

#[tokio::test]
async fn no_more_events_are_held_than_the_window_allows() {
    let store = store().await;
    let gateway = Gateway::default();
    let db = reacting(&store, texts(&gateway).window_events_max(5)).await;
    happens(&db, "slow", deposited(1)).await;
    let mut done = None;
    for number in 0..50 {
        done = Some(happens(&db, &number.to_string(), deposited(1)).await);
    }
    gateway.sends(4).await;
    let kept = store.views().generations("$reactor/texts").await.unwrap()[0].id;
    let ahead = store
        .views()
        .checkpoints(kept)
        .await
        .unwrap()
        .remove(0)
        .state
        .len();
    assert!(ahead < 60, "{ahead} bytes");
    assert_eq!(
        gateway.sent().len(),
        4,
        "the fifth place is held by the slow one"
    );
    gateway.slow.add_permits(1);
    settled(&db, &done.unwrap()).await;
    assert_eq!(gateway.sent().len(), 51);
}

/// Kills a program again and again, by dropping everything it does wherever it stands, while events
/// are appended.
async fn killed_again_and_again(gateway: &Gateway, at_most_once: bool) -> Vec<Message> {
    const ACCOUNTS: i64 = 7;
    const EVENTS: i64 = 400;
    const KILLS: usize = 40;
    let store = store().await;
    let reaction = |gateway: &Gateway| match at_most_once {
        true => texts(gateway).at_most_once(),
        false => texts(gateway),
    };
    let writer = reacting(&store, reaction(gateway)).await;
    writer.stop().await;
    let mut done = None;
    for number in 0..EVENTS {
        done = Some(
            happens(
                &writer,
                &format!("a{}", number % ACCOUNTS),
                deposited(number),
            )
            .await,
        );
    }
    let mut dice = 42_usize;
    for _ in 0..KILLS {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let on = Annals::on(store.handle());
        let reaction = reaction(gateway);
        let mut begun = gateway.begun.subscribe();
        runtime.spawn(async move {
            let _program = on.with(reaction).start().await.unwrap();
            std::future::pending::<()>().await;
        });
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let until = *begun.borrow() + (dice >> 33) % 12;
        // At the end nothing is left to be done, and a program is killed that has nothing to do.
        let _ = tokio::time::timeout(
            Duration::from_millis(50),
            begun.wait_for(|begun| *begun > until),
        )
        .await;
        runtime.shutdown_background();
        for state in store.views().leases("$reactor/").await.unwrap() {
            store.views().release_lease(&state.lease).await.unwrap();
        }
    }
    let last = reacting(&store, reaction(gateway)).await;
    settled(&last, &done.unwrap()).await;
    last.stop().await;
    gateway.sent()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missed_and_every_repetition_has_the_same_key() {
    let gateway = Gateway::default();
    let sent = killed_again_and_again(&gateway, false).await;
    let mut keys: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for (_, cents, key) in &sent {
        keys.entry(*cents).or_default().insert(key.clone());
    }
    assert_eq!(keys.len(), 400, "none is missed");
    assert!(
        keys.values().all(|keys| keys.len() == 1),
        "the key of an event is always the same"
    );
    assert_eq!(
        keys.values().flatten().collect::<BTreeSet<_>>().len(),
        400,
        "and another one for each event"
    );
    for account in (0..7).map(|number| format!("a{number}")) {
        let mut seen = BTreeSet::new();
        let first_times: Vec<_> = gateway
            .sent_to(&account)
            .into_iter()
            .filter(|cents| seen.insert(*cents))
            .collect();
        assert!(first_times.is_sorted(), "{first_times:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_keep_taking_over_from_each_other_miss_nothing() {
    let store = store().await;
    let gateway = Gateway::default();
    let mut programs = Vec::new();
    for _ in 0..3 {
        let reaction = texts(&gateway).lease(Duration::from_millis(40));
        programs.push(
            Annals::on(store.another_handle().await)
                .with(reaction)
                .start()
                .await
                .unwrap(),
        );
    }
    let robbed = store.clone();
    let robber = tokio::spawn(async move {
        loop {
            for state in robbed.views().leases("$reactor/").await.unwrap() {
                // Ends the lease under its holder, which goes on working until it notices.
                robbed.views().release_lease(&state.lease).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    });
    let mut done = None;
    for number in 0..300 {
        done = Some(happens(&programs[0], &format!("a{}", number % 7), deposited(number)).await);
    }
    gateway.sends(50).await;
    robber.abort();
    settled(&programs[0], &done.unwrap()).await;
    let keys: BTreeSet<_> = gateway
        .sent()
        .into_iter()
        .map(|(_, cents, key)| (cents, key))
        .collect();
    assert_eq!(keys.len(), 300, "each has one key, whoever made the call");
    for program in programs {
        program.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_once_is_never_twice() {
    let sent = killed_again_and_again(&Gateway::default(), true).await;
    let different: BTreeSet<_> = sent.iter().map(|(_, cents, _)| *cents).collect();
    assert_eq!(different.len(), sent.len());
    assert!(sent.len() > 100, "{}", sent.len());
}

#[tokio::test]
async fn a_key_that_fails_waits_and_goes_on_in_order_when_it_is_tried_again() {
    let store = store().await;
    let gateway = Gateway::default();
    gateway.refuse("alice", ReactError::retry("the gateway is down"));
    let db = reacting(&store, texts(&gateway)).await;
    for cents in 1..=3 {
        happens(&db, "alice", deposited(cents)).await;
    }
    let done = happens(&db, "bob", deposited(9)).await;
    settled(&db, &done).await;
    let reactor = db.reactor::<Texts>();
    let dead_letters = reactor.dead_letters().all(None, 10).await.unwrap();
    let found: Vec<_> = dead_letters
        .iter()
        .map(|of| {
            (
                &*of.key,
                of.position.get(),
                of.cause.as_deref(),
                of.attempts,
            )
        })
        .collect();
    let cause = Some("the gateway is down");
    let expected = [
        ("account-alice", 1, cause, 3),
        ("account-alice", 2, None, 0),
        ("account-alice", 3, None, 0),
    ];
    assert_eq!(found, expected);
    assert_eq!(gateway.sent_to("bob"), [9]);
    assert_eq!(
        db.status()[0].to_string(),
        "$reactor/texts v1: up to date; 1 key in dead letters"
    );

    // It still waits after a restart, and one that is tried too early waits on.
    db.stop().await;
    let db = reacting(&store, texts(&gateway)).await;
    let done = happens(&db, "alice", deposited(4)).await;
    settled(&db, &done).await;
    let reactor = db.reactor::<Texts>();
    gateway.accept("alice");
    reactor.retry("account-alice").await.unwrap();
    happens(&db, "alice", deposited(5)).await;
    gateway.sends(6).await;
    assert_eq!(gateway.sent_to("alice"), [1, 2, 3, 4, 5]);
    assert_eq!(reactor.retry("account-nobody").await.unwrap().events, 0);
}

#[tokio::test]
async fn an_event_is_left_out_with_a_reason_and_those_behind_it_go_on() {
    let store = store().await;
    let gateway = Gateway::default();
    let db = reacting(&store, texts(&gateway)).await;
    happens(&db, "alice", noted("panic")).await;
    let done = happens(&db, "alice", deposited(2)).await;
    settled(&db, &done).await;
    let reactor = db.reactor::<Texts>();
    let dead_letters = reactor.dead_letters().all(None, 10).await.unwrap();
    assert!(
        dead_letters[0]
            .cause
            .as_ref()
            .unwrap()
            .contains("a note that panics"),
        "{dead_letters:?}"
    );
    assert!(
        reactor.skip("account-alice", 1, " ").await.is_err(),
        "a reason is asked for"
    );
    reactor
        .skip("account-alice", 1, "there is nothing to say")
        .await
        .unwrap();
    gateway.sends(1).await;
    assert_eq!(gateway.sent_to("alice"), [2]);
    assert_eq!(
        store
            .views()
            .skip_decisions("$reactor/texts")
            .await
            .unwrap()[0]
            .reason,
        "there is nothing to say"
    );

    gateway.refuse("bob", ReactError::permanent("no such number"));
    happens(&db, "bob", deposited(1)).await;
    let done = happens(&db, "bob", deposited(2)).await;
    settled(&db, &done).await;
    reactor
        .discard("account-bob", "has no telephone")
        .await
        .unwrap();
    gateway.accept("bob");
    let done = happens(&db, "bob", deposited(3)).await;
    settled(&db, &done).await;
    assert_eq!(gateway.sent_to("bob"), [3]);
    assert_eq!(reactor.dead_letters().all(None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn nothing_is_called_for_in_a_rebuild() {
    let store = store().await;
    let gateway = Gateway::default();
    let db = Annals::on(store.handle());
    let db = db
        .with(Balance::projection().options(options()))
        .with(texts(&gateway))
        .start()
        .await
        .unwrap();
    let mut done = None;
    for cents in 1..=20 {
        done = Some(happens(&db, "alice", deposited(cents)).await);
    }
    settled(&db, &done.unwrap()).await;
    db.rebuild::<Balance>()
        .begin()
        .await
        .unwrap()
        .finished(|_| {})
        .await
        .unwrap();
    let done = happens(&db, "alice", deposited(21)).await;
    settled(&db, &done).await;
    assert_eq!(gateway.sent_to("alice"), (1..=21).collect::<Vec<_>>());
    db.stop().await;
}

#[tokio::test]
async fn a_reactor_begins_where_the_log_is_when_it_is_first_started_unless_it_wants_everything() {
    for (from_the_beginning, expected) in [(false, vec![2]), (true, vec![1, 2])] {
        let store = store().await;
        let db = Annals::on(store.handle());
        happens(&db, "alice", deposited(1)).await;
        let gateway = Gateway::default();
        let reaction = texts(&gateway);
        let reaction = if from_the_beginning {
            reaction.from_the_beginning()
        } else {
            reaction
        };
        let db = reacting(&store, reaction).await;
        db.stop().await;
        // Appended while no program runs: nothing is missed.
        let done = happens(&db, "alice", deposited(2)).await;
        let db = reacting(&store, texts(&gateway)).await;
        settled(&db, &done).await;
        assert_eq!(gateway.sent_to("alice"), expected);
    }
}

/// Notes every deposit in the account's own stream.
struct Notes(Annals);

impl Reactor for Notes {
    const NAME: &'static str = "notes";
    type Event = AccountEvent;

    async fn react(
        &self,
        event: &Recorded<AccountEvent>,
        request: &Request,
    ) -> Result<(), ReactError> {
        let AccountEvent::Deposited { .. } = **event else {
            return Ok(());
        };
        let account = self.0.aggregate::<Account>("journal");
        let noted = account
            .run(|_| Ok::<_, String>(noted("paid in")))
            .idempotency_key(request.idempotency_key())
            .await;
        noted.map_err(ReactError::retry)?;
        Ok(())
    }
}

#[tokio::test]
async fn what_a_reactor_appends_is_caused_by_the_event() {
    let store = store().await;
    let db = Annals::on(store.handle());
    let db = db
        .clone()
        .with(ReactorSetup::of(Notes(db)))
        .start()
        .await
        .unwrap();
    let done = happens(&db, "alice", deposited(1)).await;
    db.reactor::<Notes>()
        .wait_for(&done, PATIENCE)
        .await
        .unwrap();
    let history = db.events().pages().next().await.unwrap().unwrap().events;
    let cause = &history[0];
    let effect = &history[1];
    assert_eq!(effect.metadata.causation, Some(cause.id));
    assert_eq!(effect.metadata.correlation, cause.metadata.correlation);
    assert_eq!(cause.partition, Partition(0));
}

#[tokio::test]
async fn what_came_after_a_moment_is_done_once_more_with_the_same_keys() {
    let store = store().await;
    let gateway = Gateway::default();
    let db = reacting(&store, texts(&gateway)).await;
    gateway.refuse("bob", ReactError::Permanent("no such number".into()));
    for cents in 1..=6 {
        happens(&db, "alice", deposited(cents)).await;
        happens(&db, "bob", deposited(cents)).await;
    }
    let last = happens(&db, "alice", deposited(7)).await;
    settled(&db, &last).await;
    gateway.accept("bob");
    let reactor = db.reactor::<Texts>();
    let first = gateway.sent();
    assert_eq!(
        reactor.dead_letters().all(None, 100).await.unwrap().len(),
        6
    );

    let from = reactor.repeat_from(Position::new(4)).await.unwrap();
    assert_eq!(
        from.positions().collect::<Vec<_>>(),
        [(Partition(0), Position::new(4))]
    );
    // Whoever waits now waits for the repetition.
    settled(&db, &last).await;
    let again = gateway.sent().split_off(first.len());
    let of = |messages: &[Message], to: &str| {
        messages
            .iter()
            .filter(|(account, ..)| account == to)
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of(&again, "alice"),
        first
            .into_iter()
            .filter(|(_, cents, _)| *cents > 2)
            .collect::<Vec<_>>()
    );
    // Bob's first two wait in front of the moment, and what is behind it waits behind them again.
    assert!(of(&again, "bob").is_empty());
    assert_eq!(
        reactor.dead_letters().all(None, 100).await.unwrap().len(),
        6
    );
    reactor.retry("account-bob").await.unwrap();
    let sent = gateway.sends(7 + again.len() + 6).await;
    assert_eq!(
        of(&sent, "bob")
            .into_iter()
            .map(|(_, cents, _)| cents)
            .collect::<Vec<_>>(),
        (1..=6).collect::<Vec<_>>()
    );

    // From the very beginning, and from where nobody has been yet: everything, and nothing.
    reactor.repeat_from(Position::START).await.unwrap();
    settled(&db, &last).await;
    assert_eq!(gateway.sent().len(), sent.len() + 13);
    assert_eq!(
        reactor
            .repeat_from(Position::new(1_000))
            .await
            .unwrap()
            .position(Partition(0)),
        Position::new(13)
    );
    settled(&db, &happens(&db, "alice", deposited(8)).await).await;
    assert_eq!(gateway.sent().len(), sent.len() + 14);
    db.stop().await;
}

#[tokio::test]
async fn a_repetition_goes_on_in_the_next_program() {
    let store = store().await;
    let gateway = Gateway::default();
    let db = reacting(&store, texts(&gateway)).await;
    let mut last = None;
    for cents in 1..=5 {
        last = Some(happens(&db, "alice", deposited(cents)).await);
    }
    let last = last.unwrap();
    settled(&db, &last).await;
    let reactor = db.reactor::<Texts>();
    db.stop().await;
    reactor.repeat_from(Position::new(2)).await.unwrap();
    assert!(matches!(
        reactor.wait_for(&last, Duration::ZERO).await,
        Err(annals_projections::ViewError::NotYet { .. }
            | annals_projections::ViewError::Stopped { .. })
    ));
    for _ in 0..2 {
        let next = reacting(&store, texts(&gateway)).await;
        settled(&next, &last).await;
        next.stop().await;
    }
    assert_eq!(gateway.sent_to("alice"), [1, 2, 3, 4, 5, 3, 4, 5]);
}

#[tokio::test]
async fn what_was_not_done_yet_can_be_passed_over() {
    let store = store().await;
    let gateway = Gateway::default();
    let db = reacting(&store, texts(&gateway)).await;
    let done = happens(&db, "alice", deposited(1)).await;
    settled(&db, &done).await;
    let reactor = db.reactor::<Texts>();
    db.stop().await;
    let writer = Annals::on(store.handle());
    for cents in 2..=5 {
        happens(&writer, "alice", deposited(cents)).await;
    }
    let to = reactor.skip_to(Position::new(4)).await.unwrap();
    assert_eq!(to.position(Partition(0)), Position::new(4));
    assert_eq!(
        reactor.skip_to(Position::new(2)).await.unwrap(),
        to,
        "nothing goes back"
    );
    let db = reacting(&store, texts(&gateway)).await;
    settled(&db, &happens(&db, "alice", deposited(6)).await).await;
    assert_eq!(gateway.sent_to("alice"), [1, 5, 6]);
    db.stop().await;
}
