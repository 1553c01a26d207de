//! What operators decide about dead letters.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals_core::conformance::faulty::{FaultyStore, StoreFault};
use annals_core::{
    Annals, Append, CommitError, Failure, NewEvent, Position, Recorded, StoreError, StreamId,
    ViewCommit, ViewStore,
};
use annals_macros::View;
use annals_projections::{
    Poison, Project, ReactError, ReadModels, Row, Settled, View, ViewError, With,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::bank::{
    AccountEvent, Balance, deposited, happens, mend, noted, options, program, program_with, unmend,
};
use super::gateway::{Gateway, Texts, settled, texts};
use super::poison::{all_of, contents};
use super::rebuild::rebuilt_and_held;
use super::test_store::store;

pub(crate) async fn a_rebuild_repeats_skip_decisions() {
    let store = store().await;
    let db = program_with(&store, options().batch_events_max(3)).await;
    happens(&db, "alice", deposited(5)).await;
    let bad = happens(&db, "alice", noted("poison")).await.events()[0].position;
    happens(&db, "alice", deposited(7)).await;
    let worse = happens(&db, "alice", noted("panic")).await.events()[0].position;
    happens(&db, "alice", deposited(1)).await;
    happens(&db, "bob", deposited(2)).await;
    all_of(&db, &store).await;

    let view = db.view::<Balance>();
    let settled = view.skip("alice", bad, "entered twice").await.unwrap();
    // The next poison holds the key again, and what came before it is folded.
    let still = settled.still.unwrap();
    assert_eq!(
        (settled.events, still.position, still.attempts),
        (2, worse, 1)
    );
    assert_eq!(
        view.get("alice").await.unwrap(),
        Some(Balance {
            cents: 12,
            events: 2
        })
    );
    let settled = view.skip("alice", worse, "entered twice").await.unwrap();
    assert_eq!((settled.events, settled.still), (2, None));
    let served = contents(&view).await;
    assert_eq!(
        served["alice"],
        Balance {
            cents: 13,
            events: 3
        }
    );

    db.rebuild::<Balance>()
        .begin()
        .await
        .unwrap()
        .finished(|_| ())
        .await
        .unwrap();
    assert_eq!(contents(&view).await, served);
    let moments = [0, 5, 5, 12, 12, 13, 13];
    for (position, cents) in moments.into_iter().enumerate() {
        let row = view
            .get("alice")
            .as_of(Position::new(position as u64))
            .await
            .unwrap();
        assert_eq!(row.map_or(0, |row| row.cents), cents, "as of {position}");
    }
    let skip_decisions = view.dead_letters().skip_decisions().await.unwrap();
    let kept: Vec<_> = skip_decisions
        .iter()
        .map(|of| (of.position, of.key.as_deref(), &*of.reason))
        .collect();
    assert_eq!(
        kept,
        [
            (bad, Some("alice"), "entered twice"),
            (worse, Some("alice"), "entered twice")
        ]
    );
}

pub(crate) async fn what_is_discarded_is_gone_for_its_key_alone() {
    let store = store().await;
    let db = program(&store).await;
    happens(&db, "alice", noted("poison")).await;
    for cents in 1..=3 {
        happens(&db, "alice", deposited(cents)).await;
        happens(&db, "bob", deposited(cents)).await;
    }
    all_of(&db, &store).await;
    let tools = db.dead_letters("balances").unwrap();
    assert_eq!(tools.events("alice", None, 100).await.unwrap().len(), 4);
    let settled = tools.discard("alice", "a test account").await.unwrap();
    assert_eq!((settled.events, settled.still), (4, None));
    happens(&db, "alice", deposited(9)).await;
    all_of(&db, &store).await;
    let served = contents(&db.view::<Balance>()).await;
    assert_eq!(
        served["alice"],
        Balance {
            cents: 9,
            events: 1
        }
    );
    assert_eq!(
        served["bob"],
        Balance {
            cents: 6,
            events: 3
        }
    );
    db.rebuild::<Balance>()
        .begin()
        .await
        .unwrap()
        .finished(|_| ())
        .await
        .unwrap();
    assert_eq!(contents(&db.view::<Balance>()).await, served);
}

pub(crate) async fn a_skip_needs_a_reason_and_an_exact_position() {
    let store = store().await;
    let db = program(&store).await;
    let bad = happens(&db, "alice", noted("poison")).await.events()[0].position;
    let fine = happens(&db, "bob", deposited(1)).await.events()[0].position;
    all_of(&db, &store).await;
    let view = db.view::<Balance>();
    let no_reason = "skipping an event needs a reason: it is kept, and every rebuild repeats it";
    for refused in [
        view.skip("alice", bad, " ").await,
        view.discard("alice", "").await,
    ] {
        assert_eq!(refused.unwrap_err().to_string(), no_reason);
    }
    assert_eq!(
        view.skip_event(bad, "").await.unwrap_err().to_string(),
        no_reason
    );
    let other = view
        .skip("alice", fine, "a mistake")
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        other,
        "the event at position 2 is no dead letter of key `alice` of view `balances`"
    );
    let folded = view
        .skip_event(fine, "a mistake")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        folded.starts_with("view `balances` has handled the event at position 2 already"),
        "{folded}"
    );
    let says = "skip it for a key in dead letters, or rebuild with another fold";
    assert!(folded.contains(says), "{folded}");
    let none = view
        .skip_event(Position::new(9), "a mistake")
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(none, "view `balances` handles no event at position 9");
    assert_eq!(view.dead_letters().skip_decisions().await.unwrap(), []);
    assert_eq!(
        view.retry("bob").await.unwrap(),
        Settled::default(),
        "nothing waits for it"
    );
    assert!(db.dead_letters("nothing").is_none());
}

pub(crate) async fn an_event_that_one_generation_lacks_can_be_skipped() {
    let store = store().await;
    let db = program(&store).await;
    happens(&db, "alice", deposited(1)).await;
    let held = rebuilt_and_held(&db, &store).await;
    let done = happens(&db, "alice", deposited(2)).await;
    let position = done.events()[0].position;
    let view = db.view::<Balance>();
    view.wait_for(&done, Duration::from_secs(60)).await.unwrap();
    view.skip_event(position, "entered twice").await.unwrap();
    // The one that had it still to handle goes on without it.
    store.views().release_lease(&held).await.unwrap();
    db.rebuild::<Balance>().roll_back().await.unwrap();
    let row = view.get("alice").await.unwrap();
    assert_eq!(row.map(|row| row.events), Some(1));
    let refused = view.skip_event(position, "again").await.unwrap_err();
    assert!(refused.to_string().contains("has handled"), "{refused}");
    db.stop().await;
}

pub(crate) async fn a_dead_letter_of_a_build_alone_can_be_skipped() {
    let store = store().await;
    mend();
    let db = program_with(&store, options().batch_events_max(1).dead_letters_max(1)).await;
    let bad = happens(&db, "alice", noted("poison")).await.events()[0].position;
    let done = happens(&db, "bob", noted("poison")).await;
    let view = db.view::<Balance>();
    view.wait_for(&done, Duration::from_secs(60)).await.unwrap();
    // What serves has folded both; the code that builds anew cannot.
    unmend();
    let rebuild = db.rebuild::<Balance>();
    let building = rebuild.begin().await.unwrap();
    let stopped = building.finished(|_| ()).await.unwrap_err().to_string();
    assert!(stopped.contains("at most 1 are allowed"), "{stopped}");

    let keys = view.dead_letter_keys(None, 9).await.unwrap();
    let found: Vec<_> = keys.iter().map(|of| (&*of.key, of.position)).collect();
    assert_eq!(found, [("alice", bad)]);
    assert_eq!(view.waiting("alice", None, 9).await.unwrap().len(), 1);
    let building = rebuild.under_way().await.unwrap().unwrap();
    let settled = view.skip("alice", bad, "entered twice").await.unwrap();
    assert_eq!((settled.events, settled.still), (1, None));
    building.finished(|_| ()).await.unwrap();
    assert_eq!(view.get("alice").await.unwrap(), None);
    let settled = view.discard("bob", "entered twice").await.unwrap();
    assert_eq!((settled.events, settled.still), (1, None));
    assert_eq!(view.dead_letter_keys(None, 9).await.unwrap(), []);
    // The generation that had handled it keeps what came of it.
    rebuild.roll_back().await.unwrap();
    let row = view.get("alice").await.unwrap();
    assert_eq!(row.map(|row| row.events), Some(1));
    db.stop().await;
}

pub(crate) async fn an_event_without_a_key_stops_until_skipped() {
    let store = store().await;
    let db = program(&store).await;
    happens(&db, "alice", deposited(1)).await;
    let stream = StreamId::new("account-alice").unwrap();
    let unreadable = NewEvent::json("account.deposited", r#"{"cents":"many"}"#);
    let bad = store
        .append(Append::new(stream, [unreadable]))
        .await
        .unwrap()
        .last()
        .position;
    let done = happens(&db, "bob", deposited(2)).await;

    let view = db.view::<Balance>();
    let error = view
        .get("bob")
        .at_least(&done)
        .within(Duration::from_millis(200))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot read version 2 of stream `account-alice` (position 2"),
        "{error}"
    );
    assert!(
        error.contains("skip the event at 2 of view `balances` with `skip_event`"),
        "{error}"
    );
    assert_eq!(
        view.get("alice").await.unwrap(),
        Some(Balance {
            cents: 1,
            events: 1
        }),
        "what comes before it is folded"
    );

    view.skip_event(bad, "sent by a broken client")
        .await
        .unwrap();
    assert_eq!(
        view.get("bob").at_least(&done).await.unwrap(),
        Some(Balance {
            cents: 2,
            events: 1
        })
    );
    assert_eq!(
        view.get("alice").as_of(bad).await.unwrap(),
        Some(Balance {
            cents: 1,
            events: 1
        })
    );
}

pub(crate) async fn too_many_dead_letters_stop_the_projection() {
    let store = store().await;
    let db = program_with(&store, options().dead_letters_max(3)).await;
    for _ in 0..3 {
        happens(&db, "alice", noted("poison")).await;
    }
    all_of(&db, &store).await;
    let done = happens(&db, "alice", deposited(1)).await;
    let view = db.view::<Balance>();
    let error = view
        .get("alice")
        .at_least(&done)
        .within(Duration::from_millis(200))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error
            .contains("slot 0 of view `balances` would have 4 dead letters, at most 3 are allowed"),
        "{error}"
    );
    assert!(error.contains("skip or discard their dead letters, or raise `dead_letters_max`"));
    assert_eq!(view.discard("alice", "a test").await.unwrap().events, 3);
    assert_eq!(
        view.get("alice").at_least(&done).await.unwrap(),
        Some(Balance {
            cents: 1,
            events: 1
        })
    );
}

/// A store that takes the first step that settles dead letters, and whose answer is lost.
#[derive(Debug, Default)]
struct LosesTheAnswer(AtomicBool);

#[async_trait]
impl StoreFault for LosesTheAnswer {
    async fn commit_view(
        &self,
        views: &dyn ViewStore,
        step: ViewCommit,
    ) -> Result<(), CommitError> {
        let settles = !step.settled_letters.is_empty();
        views.commit_view(step).await?;
        if settles && !self.0.swap(true, Ordering::SeqCst) {
            return Err(StoreError::new(Failure::Unavailable, "the answer was lost").into());
        }
        Ok(())
    }
}

pub(crate) async fn a_skip_whose_answer_is_lost_delays_no_later_event() {
    let store = store().await;
    let gateway = Gateway::default();
    gateway.refuse("alice", ReactError::permanent("an unknown number"));
    let db = Annals::on(FaultyStore::new(store.handle(), LosesTheAnswer::default()));
    let view = Balance::projection().options(options());
    let db = db.with(view).start().await.unwrap();
    happens(&db, "alice", deposited(1)).await;
    let bad = happens(&db, "alice", noted("poison")).await;
    let position = bad.events()[0].position;
    let view = db.view::<Balance>();
    view.wait_for(&bad, Duration::from_secs(60)).await.unwrap();
    let lost = view.skip("alice", position, "a test").await;
    assert!(matches!(lost, Err(ViewError::Store(_))), "{lost:?}");
    let done = happens(&db, "alice", deposited(2)).await;
    let row = view.get("alice").at_least(&done).await.unwrap();
    assert_eq!(
        row,
        Some(Balance {
            cents: 3,
            events: 2
        })
    );
    db.stop().await;

    let db = Annals::on(FaultyStore::new(store.handle(), LosesTheAnswer::default()));
    let db = db.with(texts(&gateway)).start().await.unwrap();
    let bad = happens(&db, "alice", deposited(4)).await;
    settled(&db, &bad).await;
    gateway.accept("alice");
    let reactor = db.reactor::<Texts>();
    let position = bad.events()[0].position;
    let lost = reactor.skip("account-alice", position, "a test").await;
    assert!(matches!(lost, Err(ViewError::Store(_))), "{lost:?}");
    let done = happens(&db, "alice", deposited(8)).await;
    settled(&db, &done).await;
    assert_eq!(gateway.sent_to("alice"), [8]);
    db.stop().await;
}

/// A move between two accounts, which makes no sense for one of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "moved",
    version = 1,
    events(AccountEvent),
    crate = "annals_projections"
)]
struct Moved {
    events: u64,
}

impl Project<AccountEvent> for Moved {
    fn keys(event: &Recorded<AccountEvent>) -> Result<Vec<String>, Poison> {
        Ok(vec![event.record.stream.id().to_owned(), "all".to_owned()])
    }

    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        if row.key().as_deref() == Some("alice") && event.event == noted("poison") {
            return Err(Poison::new("not for her"));
        }
        row.events += 1;
        Ok(())
    }
}

pub(crate) async fn an_event_skipped_for_one_key_counts_for_others() {
    let store = store().await;
    let db = Annals::on(store.handle())
        .with(Moved::projection().options(options()))
        .start()
        .await
        .unwrap();
    let bad = happens(&db, "alice", noted("poison")).await.events()[0].position;
    let done = happens(&db, "alice", deposited(1)).await;
    let view = db.view::<Moved>();
    view.wait_for(&done, Duration::from_secs(30)).await.unwrap();
    view.skip("alice", bad, "not hers").await.unwrap();
    for _ in 0..2 {
        assert_eq!(view.get("alice").await.unwrap(), Some(Moved { events: 1 }));
        assert_eq!(view.get("all").await.unwrap(), Some(Moved { events: 2 }));
        db.rebuild::<Moved>()
            .begin()
            .await
            .unwrap()
            .finished(|_| ())
            .await
            .unwrap();
    }
}

pub(crate) async fn settling_during_appends_folds_each_event_once() {
    let store = store().await;
    // Two programs, so that a slot is also taken from a worker that is not told.
    let programs = [
        program_with(&store, options().slots(2).lease(Duration::from_millis(200))).await,
        program_with(&store, options().slots(2).lease(Duration::from_millis(200))).await,
    ];
    let writer = Annals::on(store.handle());
    let writing = tokio::spawn(async move {
        for number in 0..300 {
            let key = (number % 5).to_string();
            let event = if number % 29 == 0 {
                noted("poison")
            } else {
                deposited(1)
            };
            happens(&writer, &key, event).await;
        }
    });
    let view = programs[1].view::<Balance>();
    loop {
        let over = writing.is_finished();
        if over {
            all_of(&programs[1], &store).await;
        }
        let dead_letters = view.dead_letter_keys(None, 100).await.unwrap();
        if over && dead_letters.is_empty() {
            break;
        }
        for key in dead_letters {
            // Another look may have come first.
            let _ = view.skip(key.key, key.position, "a test").await;
        }
        tokio::task::yield_now().await;
    }
    let rows = contents(&view).await;
    let expected = |key: usize| {
        (key..300)
            .step_by(5)
            .filter(|number| number % 29 != 0)
            .count() as u64
    };
    for key in 0..5 {
        assert_eq!(rows[&key.to_string()].events, expected(key), "{key}");
    }
    for program in programs {
        program.stop().await;
    }
}
