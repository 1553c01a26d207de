//! Side effects: at least once, in order for each key, and never in a rebuild.

use std::collections::BTreeSet;
use std::time::Duration;

use annals_core::{Annals, Partition, Position, Recorded};
use annals_projections::{ReactError, Reactor, ReactorSetup, ReadModels, Request, View, With};

use super::bank::{Account, AccountEvent, Balance, deposited, happens, noted, options};
use super::gateway::{Gateway, Message, TIMEOUT, Texts, reacting, settled, texts};
use super::status::told;
use super::test_store::store;

pub(crate) async fn a_slow_key_delays_no_other_and_keeps_order() {
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
    told(&db, "$reactor/texts v1: up to date").await;
    db.stop().await;
}

pub(crate) async fn events_settled_after_a_slow_one_are_not_repeated() {
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

pub(crate) async fn no_more_events_are_held_than_the_window_allows() {
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

pub(crate) async fn a_failed_key_continues_in_order_after_a_retry() {
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
                of.reason.as_deref(),
                of.attempts,
            )
        })
        .collect();
    let reason = Some("the gateway is down");
    let expected = [
        ("account-alice", 1, reason, 3),
        ("account-alice", 2, None, 0),
        ("account-alice", 3, None, 0),
    ];
    assert_eq!(found, expected);
    assert_eq!(gateway.sent_to("bob"), [9]);
    told(&db, "$reactor/texts v1: up to date; 1 key in dead letters").await;

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

pub(crate) async fn a_skipped_event_lets_later_ones_go_on() {
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
            .reason
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

pub(crate) async fn a_rebuild_calls_no_reactor() {
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

pub(crate) async fn a_new_reactor_begins_at_the_head_by_default() {
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

pub(crate) async fn what_a_reactor_appends_is_caused_by_the_event() {
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
        .wait_for(&done, TIMEOUT)
        .await
        .unwrap();
    let history = db.events().pages().next().await.unwrap().unwrap().events;
    let cause = &history[0];
    let effect = &history[1];
    assert_eq!(effect.metadata.causation, Some(cause.id));
    assert_eq!(effect.metadata.correlation, cause.metadata.correlation);
    assert_eq!(cause.partition, Partition(0));
}

pub(crate) async fn repeating_from_a_moment_uses_the_same_keys() {
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
    // Who waits now waits for the repetition.
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
    // Bob's first two wait in front of the moment, and what comes after it waits after them again.
    assert!(of(&again, "bob").is_empty());
    assert_eq!(
        reactor.dead_letters().all(None, 100).await.unwrap().len(),
        6
    );
    reactor.retry("account-bob").await.unwrap();
    let sent = gateway.sends(7 + again.len() + 6).await;
    // What was sent is settled a moment later. Moving the reactor before would have it sent again.
    let settles = async {
        while !reactor
            .dead_letters()
            .all(None, 1)
            .await
            .unwrap()
            .is_empty()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, settles).await.unwrap();
    assert_eq!(
        of(&sent, "bob")
            .into_iter()
            .map(|(_, cents, _)| cents)
            .collect::<Vec<_>>(),
        (1..=6).collect::<Vec<_>>()
    );

    // From the very beginning, and from where no reader has been yet: everything, and nothing.
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
    // It is called once more when it was under way as the reactor was moved, with the same key.
    let after = gateway.sent().split_off(sent.len() + 13);
    assert!(!after.is_empty() && after.iter().all(|call| *call == after[0]));
    assert_eq!((&*after[0].0, after[0].1), ("alice", 8), "{after:?}");
    db.stop().await;
}

pub(crate) async fn a_repetition_goes_on_in_the_next_program() {
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

pub(crate) async fn a_reactor_can_skip_ahead() {
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
