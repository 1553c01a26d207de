//! Questions about the past: at a version, as known at a moment, as it had happened by a time, and
//! both.

use std::sync::Arc;

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::{
    Aggregate, Annals, Clock, Deletion, LoadError, ManualClock, Position, StreamId, Version,
};
use proptest::prelude::*;

use crate::bank::{Account, Refusal, deposited};
use crate::snapshots::Snapped;
use crate::store::{alice, at_a_held_clock, given, processes};

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// Deposits of 1, 10, 100, a day apart from the 2nd on.
async fn three_days() -> (Annals, Arc<ManualClock>) {
    let (db, clock) = at_a_held_clock();
    for cents in [1, 10, 100] {
        clock.advance(TimeDelta::days(1));
        alice(&db).run(|a| a.deposit(cents)).await.unwrap();
    }
    (db, clock)
}

#[tokio::test]
async fn every_version_can_be_read_and_none_past_the_end() {
    let (db, _) = three_days().await;
    for (version, cents, exists) in [(0, 0, false), (1, 1, true), (2, 11, true), (3, 111, true)] {
        let then = alice(&db).load().at_version(version).await.unwrap();
        assert_eq!(
            (then.cents, then.exists(), then.version()),
            (cents, exists, version.into())
        );
        assert_eq!(then.position(), Position::new(version));
    }
    let error = alice(&db).load().at_version(4).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "stream `account-alice` is at 3, version 4 was asked for"
    );
    let error = db
        .aggregate::<Account>("nobody")
        .load()
        .at_version(1)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            LoadError::VersionPastEnd {
                version: Version::NONE,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        !db.aggregate::<Account>("nobody")
            .load()
            .at_version(0)
            .await
            .unwrap()
            .exists()
    );
}

#[tokio::test]
async fn a_moment_is_a_position_a_time_or_a_text() {
    let (db, _) = three_days().await;
    for (text, cents) in [
        ("2025-12-31T00:00:00Z", 0),
        ("2026-01-01T23:59:59.999999Z", 0),
        ("2026-01-02T00:00:00Z", 1),
        ("2026-01-03T12:00:00+13:00", 1),
        ("2026-01-03T12:00:00-01:00", 11),
        ("2099-01-01T00:00:00Z", 111),
    ] {
        assert_eq!(
            alice(&db).load().as_of(text).await.unwrap().cents,
            cents,
            "{text}"
        );
        assert_eq!(
            alice(&db).load().as_of(time(text)).await.unwrap().cents,
            cents,
            "{text}"
        );
    }
    for (position, cents, resolved) in [
        (0, 0, 0),
        (1, 1, 1),
        (2, 11, 2),
        (3, 111, 3),
        (1_000, 111, 3),
    ] {
        let then = alice(&db)
            .load()
            .as_of(Position::new(position))
            .await
            .unwrap();
        assert_eq!(
            (then.cents, then.position()),
            (cents, Position::new(resolved)),
            "{position}"
        );
    }
    for bad in ["", "yesterday", "2026-01-03", "2026-13-01T00:00:00Z"] {
        let error = alice(&db).load().as_of(bad).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("`{bad}` is no RFC 3339 time such as 2026-03-31T00:00:00Z")
        );
        assert!(
            matches!(
                alice(&db).load().valid_at(bad).await,
                Err(LoadError::Invalid(_))
            ),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn what_came_of_a_command_is_a_moment_too() {
    let [db] = processes();
    let first = alice(&db).run(|a| a.deposit(1)).await.unwrap();
    alice(&db).run(|a| a.deposit(10)).await.unwrap();
    let nothing = alice(&db).run(|_| Ok::<_, Refusal>(())).await.unwrap();
    alice(&db).run(|a| a.deposit(100)).await.unwrap();
    assert_eq!(alice(&db).load().as_of(&first).await.unwrap().cents, 1);
    assert_eq!(alice(&db).load().as_of(&nothing).await.unwrap().cents, 11);
}

#[tokio::test]
async fn before_the_first_event_there_is_nothing() {
    let (db, clock) = at_a_held_clock();
    clock.set(time("2026-03-01T00:00:00Z"));
    given(&db, "other-1", [deposited(1)]).await;
    alice(&db).run(|a| a.deposit(1)).await.unwrap();
    let then = alice(&db).load().as_of(Position::new(1)).await.unwrap();
    assert_eq!(
        (then.exists(), then.version(), then.position()),
        (false, Version::NONE, Position::new(1))
    );
    let then = alice(&db)
        .load()
        .as_of("2026-02-28T00:00:00Z")
        .await
        .unwrap();
    assert_eq!(
        (then.exists(), &*then, then.position()),
        (false, &Account::default(), Position::START)
    );
    let then = alice(&db)
        .load()
        .valid_at("2026-02-28T00:00:00Z")
        .await
        .unwrap();
    assert_eq!((then.exists(), &*then), (false, &Account::default()));
}

#[tokio::test]
async fn what_happened_is_independent_of_recording_time() {
    let (db, clock) = at_a_held_clock();
    // Recorded in this order; the second one happened before the first.
    for (recorded, occurred, cents) in [
        ("2026-03-02T09:00:00Z", "2026-03-02T08:00:00Z", 100),
        ("2026-03-03T09:00:00Z", "2026-03-01T12:00:00Z", 10),
        ("2026-03-04T09:00:00Z", "2026-03-04T08:00:00Z", 1),
    ] {
        clock.set(time(recorded));
        alice(&db)
            .run(|a| a.deposit(cents))
            .occurred_at(time(occurred))
            .await
            .unwrap();
    }
    let load = || alice(&db);
    for (valid_at, cents) in [
        ("2026-03-01T11:59:59Z", 0),
        ("2026-03-01T12:00:00Z", 10),
        ("2026-03-02T08:00:00Z", 110),
        ("2026-03-04T08:00:00Z", 111),
    ] {
        assert_eq!(
            load().load().valid_at(valid_at).await.unwrap().cents,
            cents,
            "{valid_at}"
        );
    }
    // What did we believe on Monday, and on Tuesday, about Sunday and about Monday?
    for (as_of, valid_at, cents) in [
        ("2026-03-02T23:00:00Z", "2026-03-01T23:00:00Z", 0),
        ("2026-03-03T23:00:00Z", "2026-03-01T23:00:00Z", 10),
        ("2026-03-02T23:00:00Z", "2026-03-02T23:00:00Z", 100),
        ("2026-03-03T23:00:00Z", "2026-03-02T23:00:00Z", 110),
    ] {
        let then = load().load().as_of(as_of).valid_at(valid_at).await.unwrap();
        assert_eq!(then.cents, cents, "as of {as_of} about {valid_at}");
        assert_eq!(
            load().load().valid_at(valid_at).as_of(as_of).await.unwrap(),
            then
        );
        assert_eq!(then.exists(), cents > 0);
    }
    assert_eq!(
        load()
            .load()
            .at_version(2)
            .valid_at("2026-03-01T23:00:00Z")
            .await
            .unwrap()
            .cents,
        10
    );
}

#[tokio::test]
async fn a_stream_of_several_pages_is_read_whole() {
    let [db] = processes();
    for page in 0..3 {
        given(
            &db,
            "account-alice",
            (1..=900).map(|n| deposited(page * 1_000 + n)),
        )
        .await;
        given(&db, "account-bob", [deposited(1)]).await;
    }
    let sum = |count: i64| {
        (0..count)
            .map(|n| n / 900 * 1_000 + n % 900 + 1)
            .sum::<i64>()
    };
    assert_eq!(alice(&db).load().await.unwrap().cents, sum(2_700));
    assert_eq!(alice(&db).query(|a| a.moves).await.unwrap(), 2_700);
    for version in [1, 999, 1_000, 1_001, 2_000, 2_001, 2_699, 2_700] {
        let then = alice(&db).load().at_version(version).await.unwrap();
        assert_eq!(
            (then.cents, then.moves),
            (sum(version as i64), version),
            "{version}"
        );
        let same = alice(&db).load().as_of(then.position()).await.unwrap();
        assert_eq!(
            (&*same, same.version(), same.position()),
            (&*then, then.version(), then.position()),
            "{version}"
        );
    }
}

#[tokio::test]
async fn the_current_state_matches_the_position_of_the_answer() {
    // Whatever is appended while the question is answered is either in the state and in the
    // position, or in neither.
    use annals_core::conformance::faulty::Call;

    use crate::store::{Meanwhile, faulty};
    for call in [
        Call::ReadStream,
        Call::StreamState,
        Call::Head,
        Call::PositionAt,
    ] {
        for skip in 0..3 {
            let (other, clock) = three_days().await;
            let faster = other.clone();
            let happens = move || {
                let faster = faster.clone();
                async move { drop(alice(&faster).run(|a| a.deposit(1_000)).await.unwrap()) }
            };
            let (db, _) = faulty(&other, Meanwhile::once(call, happens).skipping(skip));
            let far = clock.now() + TimeDelta::days(1_000);
            let handle = alice(&db);
            let question = match skip % 3 {
                0 => handle.load().as_of(Position::MAX),
                1 => handle.load().as_of(far),
                _ => handle.load().valid_at(far),
            };
            let then = question.await.unwrap();
            let expected = alice(&other).load().as_of(then.position()).await.unwrap();
            assert_eq!(
                (then.cents, then.version()),
                (expected.cents, expected.version()),
                "{call:?} {skip}"
            );
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Deposit {
        alice: bool,
        cents: i64,
        occurred_hours_ago: i64,
    },
    Delete,
    Truncate,
    Wait {
        minutes: i64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (any::<bool>(), 1..1_000_i64, 0..5_i64)
            .prop_map(|(alice, cents, occurred_hours_ago)| Op::Deposit {
                alice,
                cents,
                occurred_hours_ago,
            }),
        1 => Just(Op::Delete),
        1 => Just(Op::Truncate),
        3 => (0..120_i64).prop_map(|minutes| Op::Wait { minutes }),
    ]
}

/// What happened to alice, in order, as a simple mind keeps it.
#[derive(Clone, Debug)]
enum Fact {
    Deposited {
        version: u64,
        position: u64,
        recorded: DateTime<Utc>,
        occurred: DateTime<Utc>,
        cents: i64,
    },
    Deleted(Deletion),
}

/// Folds the facts that count, one after another.
fn replay<'a>(facts: impl Iterator<Item = &'a Fact>) -> (Account, bool) {
    let mut account = Account::default();
    let mut exists = false;
    for fact in facts {
        match fact {
            Fact::Deposited { cents, .. } => {
                account.apply(&deposited(*cents));
                exists = true;
            }
            Fact::Deleted(_) => (account, exists) = (Account::default(), false),
        }
    }
    (account, exists)
}

async fn lived(ops: &[Op]) -> (Annals, Vec<Fact>, u64, DateTime<Utc>) {
    let (db, clock) = at_a_held_clock();
    let mut facts = Vec::new();
    let mut head = 0;
    for op in ops {
        match op {
            Op::Deposit {
                alice: false,
                cents,
                ..
            } => {
                given(&db, "account-bob", [deposited(*cents)]).await;
                head += 1;
            }
            Op::Deposit {
                cents,
                occurred_hours_ago,
                ..
            } => {
                let occurred = clock.now() - TimeDelta::hours(*occurred_hours_ago);
                // The one with snapshots, so that there are some.
                let snapped = db.aggregate::<Snapped>("alice");
                let done = snapped
                    .run(|_| Ok::<_, Refusal>(deposited(*cents)))
                    .occurred_at(occurred)
                    .await
                    .unwrap();
                head += 1;
                let placed = &done.events()[0];
                assert_eq!(placed.position.get(), head);
                let version = placed.version.get();
                let position = head;
                let recorded = clock.now();
                facts.push(Fact::Deposited {
                    version,
                    position,
                    recorded,
                    occurred,
                    cents: *cents,
                });
            }
            Op::Delete => {
                let state = alice(&db).delete().await.unwrap();
                let known = facts
                    .iter()
                    .filter(|fact| matches!(fact, Fact::Deleted(_)))
                    .count();
                facts.extend(state.deletions.into_iter().skip(known).map(Fact::Deleted));
            }
            Op::Truncate => {
                let stream = StreamId::new("account-alice").unwrap();
                let state = db.store().stream_state(&stream).await.unwrap();
                // Refused where there is nothing to truncate; it changes no fold either way.
                let _ = alice(&db).truncate_before(state.version).await;
            }
            Op::Wait { minutes } => clock.advance(TimeDelta::minutes(*minutes)),
        }
    }
    (db, facts, head, clock.now())
}

async fn check(ops: &[Op]) {
    let (db, facts, head, now) = lived(ops).await;
    let asked = |what: &str, counts: &dyn Fn(&Fact) -> bool| {
        (replay(facts.iter().filter(|f| counts(f))), what.to_owned())
    };
    let answers = async |load: annals_core::Load<'_, Account>,
                         snapped: annals_core::Load<'_, Snapped>| {
        let plain = load.await.unwrap();
        let snapped = snapped.await.unwrap();
        assert_eq!(
            (&snapped.account, snapped.exists()),
            (&*plain, plain.exists()),
            "with snapshots and without"
        );
        assert_eq!(
            (snapped.version(), snapped.position()),
            (plain.version(), plain.position())
        );
        (plain.exists(), plain.into_state())
    };
    let alice = alice(&db);
    let snapped = db.aggregate::<Snapped>("alice");

    let ((state, exists), _) = asked("now", &|_| true);
    assert_eq!(answers(alice.load(), snapped.load()).await, (exists, state));
    for position in 0..=head + 2 {
        let position = Position::new(position);
        let ((state, exists), what) = asked(&format!("as of {position}"), &|fact| match fact {
            Fact::Deposited { position: at, .. } => *at <= position.get(),
            Fact::Deleted(deletion) => deletion.position < position,
        });
        let found = answers(alice.load().as_of(position), snapped.load().as_of(position)).await;
        assert_eq!(found, (exists, state), "{what}");
    }
    let last = facts
        .iter()
        .filter(|fact| matches!(fact, Fact::Deposited { .. }))
        .count() as u64;
    for asked_version in 0..=last {
        let ((state, exists), what) =
            asked(&format!("at version {asked_version}"), &|fact| match fact {
                Fact::Deposited { version, .. } => *version <= asked_version,
                Fact::Deleted(deletion) => deletion.version.get() < asked_version,
            });
        let found = answers(
            alice.load().at_version(asked_version),
            snapped.load().at_version(asked_version),
        )
        .await;
        assert_eq!(found, (exists, state), "{what}");
    }
    let recorded_by = |fact: &Fact, time| match fact {
        Fact::Deposited { recorded, .. } => *recorded <= time,
        Fact::Deleted(deletion) => deletion.recorded_at <= time,
    };
    for minutes in (0..=(now - ManualClock::default().now()).num_minutes() + 30).step_by(30) {
        let known = ManualClock::default().now() + TimeDelta::minutes(minutes);
        let ((state, exists), what) =
            asked(&format!("as of {known}"), &|fact| recorded_by(fact, known));
        assert_eq!(
            answers(alice.load().as_of(known), snapped.load().as_of(known)).await,
            (exists, state),
            "{what}"
        );
        let valid = known - TimeDelta::hours(1);
        let ((state, exists), what) = asked(&format!("as of {known} about {valid}"), &|fact| {
            recorded_by(fact, known)
                && match fact {
                    Fact::Deposited { occurred, .. } => *occurred <= valid,
                    Fact::Deleted(_) => true,
                }
        });
        let load = alice.load().as_of(known);
        let with = snapped.load().as_of(known);
        assert_eq!(
            answers(load.valid_at(valid), with.valid_at(valid)).await,
            (exists, state),
            "{what}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_past_equals_a_replay_with_and_without_snapshots(
        ops in prop::collection::vec(op(), 0..24),
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(check(&ops));
    }
}
