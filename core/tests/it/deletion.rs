//! Deleting, truncating, archiving: what folds see, now and in the past.

use annals_core::chrono::TimeDelta;
use annals_core::conformance::faulty::{AnswerLost, Call};
use annals_core::{AppendError, CommandError, LoadError, Position, Status, Version};

use crate::bank::{Account, AccountEvent, Refusal, deposited};
use crate::snapshots::Snapped;
use crate::store::{Meanwhile, alice, at_a_held_clock, faulty, given, head, processes};

#[tokio::test]
async fn a_deleted_aggregate_is_absent_now_and_present_before() {
    let (db, clock) = at_a_held_clock();
    alice(&db).run(|a| a.deposit(5)).await.unwrap();
    given(&db, "account-bob", [deposited(1)]).await;
    clock.advance(TimeDelta::hours(1));
    let before = clock.now_text();
    clock.advance(TimeDelta::hours(1));
    let state = alice(&db).delete().await.unwrap();
    assert_eq!(
        (state.status, state.version),
        (Status::Deleted, Version::new(1))
    );
    let now = alice(&db).load().await.unwrap();
    assert_eq!(
        (&*now, now.exists(), now.version()),
        (&Account::default(), false, Version::new(1))
    );
    // By time, by version, by the positions up to where the log went.
    assert_eq!(alice(&db).load().as_of(&*before).await.unwrap().cents, 5);
    assert!(
        !alice(&db)
            .load()
            .as_of(&*clock.now_text())
            .await
            .unwrap()
            .exists()
    );
    assert_eq!(alice(&db).load().at_version(1).await.unwrap().cents, 5);
    assert_eq!(
        alice(&db)
            .load()
            .as_of(Position::new(2))
            .await
            .unwrap()
            .cents,
        5
    );
    given(&db, "account-bob", [deposited(1)]).await;
    assert!(
        !alice(&db)
            .load()
            .as_of(Position::new(3))
            .await
            .unwrap()
            .exists()
    );
    // Deleting again, and deleting what was never there, changes nothing.
    assert_eq!(alice(&db).delete().await.unwrap(), state);
    assert_eq!(
        db.aggregate::<Account>("nobody")
            .delete()
            .await
            .unwrap()
            .status,
        Status::Absent
    );
}

trait NowText {
    fn now_text(&self) -> String;
}

impl NowText for annals_core::ManualClock {
    fn now_text(&self) -> String {
        annals_core::Clock::now(self).to_rfc3339()
    }
}

#[tokio::test]
async fn a_recreated_aggregate_starts_empty_and_keeps_counting() {
    let [db, other] = processes();
    for round in 1..=3 {
        alice(&db).create(|a| a.deposit(round)).await.unwrap();
        alice(&other).run(|a| a.deposit(10)).await.unwrap();
        let now = alice(&db).load().await.unwrap();
        assert_eq!(
            (now.cents, now.moves, now.version()),
            (10 + round, 2, Version::new(2 * round as u64))
        );
        alice(&other).delete().await.unwrap();
    }
    for (version, cents) in [(1, 1), (2, 11), (3, 2), (4, 12), (5, 3), (6, 13)] {
        assert_eq!(
            alice(&db).load().at_version(version).await.unwrap().cents,
            cents,
            "{version}"
        );
    }
}

#[tokio::test]
async fn truncating_changes_no_fold() {
    let [db] = processes();
    given(&db, "account-alice", (1..=5).map(deposited)).await;
    let before = alice(&db).load().await.unwrap();
    alice(&db).truncate_before(4).await.unwrap();
    assert_eq!(alice(&db).load().await.unwrap(), before);
    assert_eq!(alice(&db).load().at_version(2).await.unwrap().cents, 3);
    assert_eq!(alice(&db).query(|a| a.cents).await.unwrap(), 15);
    let error = alice(&db).truncate_before(7).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "stream `account-alice` is at 5, it cannot be truncated before version 7"
    );
}

#[tokio::test]
async fn a_tombstone_refuses_every_command_for_ever() {
    let [db, other] = processes();
    alice(&db).run(|a| a.deposit(5)).await.unwrap();
    alice(&other).tombstone().await.unwrap();
    let error = alice(&db).run(|a| a.deposit(1)).await.unwrap_err();
    assert!(matches!(error, CommandError::Tombstoned { .. }), "{error}");
    assert!(!alice(&db).load().await.unwrap().exists());
    assert_eq!(alice(&db).load().at_version(1).await.unwrap().cents, 5);
    for again in [alice(&db).tombstone().await, alice(&db).delete().await] {
        assert!(matches!(again.unwrap_err(), AppendError::Conflict(_)));
    }
    assert_eq!(head(&db).await, 1);
}

fn summary(account: &Account) -> Result<AccountEvent, Refusal> {
    Ok(AccountEvent::BroughtForward(account.clone()))
}

#[tokio::test]
async fn an_archive_keeps_the_state_and_removes_older_versions() {
    let (db, clock) = at_a_held_clock();
    for cents in 1..=4 {
        clock.advance(TimeDelta::days(1));
        alice(&db).run(|a| a.deposit(cents)).await.unwrap();
    }
    let yesterday = clock.now_text();
    clock.advance(TimeDelta::days(1));
    let before = alice(&db).load().await.unwrap().into_state();
    let done = alice(&db).archive(summary).await.unwrap();
    assert_eq!(
        done.version_of(alice(&db).stream().unwrap()),
        Some(Version::new(5))
    );
    let now = alice(&db).load().await.unwrap();
    assert_eq!((&*now, now.version()), (&before, Version::new(5)));
    assert_eq!(alice(&db).load().at_version(0).await.unwrap().cents, 0);
    assert_eq!(alice(&db).load().at_version(5).await.unwrap().cents, 10);
    assert_eq!(
        alice(&db)
            .load()
            .as_of(&*clock.now_text())
            .await
            .unwrap()
            .cents,
        10
    );
    assert_eq!(
        alice(&db)
            .load()
            .valid_at(&*clock.now_text())
            .await
            .unwrap()
            .cents,
        10
    );
    let handle = alice(&db);
    for gone in [
        handle.load().at_version(4),
        handle.load().at_version(1),
        handle.load().as_of(Position::new(3)),
        handle.load().as_of(&*yesterday),
        // It cannot be told from the summary what had happened by then.
        handle.load().valid_at(&*yesterday),
    ] {
        let error = gone.await.unwrap_err();
        assert!(matches!(error, LoadError::Archived { .. }), "{error}");
        assert_eq!(
            error.to_string(),
            "the events of stream `account-alice` before version 5 were archived"
        );
    }
    alice(&db).run(|a| a.deposit(1)).await.unwrap();
    assert_eq!(alice(&db).load().at_version(6).await.unwrap().cents, 11);
    let nothing = db
        .aggregate::<Account>("nobody")
        .archive(summary)
        .await
        .unwrap_err();
    assert!(
        matches!(nothing, CommandError::NotFound { .. }),
        "{nothing}"
    );
}

#[tokio::test]
async fn a_cached_state_from_before_an_archive_stays_right() {
    // The other process archives when this one has seen 2 of 4, all but the summary, or a snapshot
    // at 3.
    for seen in [2, 4] {
        for more in [0, 2] {
            let [here, there] = processes();
            for _ in 0..seen {
                here.aggregate::<Snapped>("alice")
                    .run(|_| Ok::<_, Refusal>(deposited(1)))
                    .await
                    .unwrap();
            }
            alice(&here).query(|a| a.cents).await.unwrap();
            for _ in seen..4 {
                alice(&there).run(|a| a.deposit(1)).await.unwrap();
            }
            alice(&there).archive(summary).await.unwrap();
            for _ in 0..more {
                alice(&there).run(|a| a.deposit(1)).await.unwrap();
            }
            let cents = 4 + more;
            assert_eq!(
                alice(&here).query(|a| a.cents).await.unwrap(),
                cents,
                "{seen} {more}"
            );
            let snapped = here.aggregate::<Snapped>("alice");
            assert_eq!(
                snapped.load().await.unwrap().account.cents,
                cents,
                "{seen} {more}"
            );
            alice(&here).run(|a| a.withdraw(cents)).await.unwrap();
            assert_eq!(
                alice(&there).query(Account::clone).await.unwrap(),
                *alice(&here).load().await.unwrap()
            );
            assert_eq!(
                snapped.query(|s| s.account.clone()).await.unwrap(),
                *alice(&here).load().await.unwrap()
            );
        }
    }
}

#[tokio::test]
async fn a_fold_that_has_missed_something_starts_from_the_summary() {
    let [here, there] = processes();
    let snapped = here.aggregate::<Snapped>("alice");
    snapped
        .run(|_| Ok::<_, Refusal>([deposited(1), deposited(1)]))
        .await
        .unwrap();
    for _ in 0..2 {
        alice(&there).run(|a| a.deposit(1)).await.unwrap();
    }
    alice(&there).archive(summary).await.unwrap();
    alice(&there).run(|a| a.deposit(1)).await.unwrap();
    let seen = snapped
        .query(|s| (s.account.cents, s.folded))
        .await
        .unwrap();
    assert_eq!(
        seen,
        (5, 2),
        "the summary and what came after it, nothing on top of what was held"
    );
}

#[tokio::test]
async fn an_archive_during_an_answer_leaves_no_gap_in_it() {
    for skip in 0..4 {
        let [other] = processes();
        given(&other, "account-alice", (1..=4).map(deposited)).await;
        let archiving = other.clone();
        let happens = move || {
            let archiving = archiving.clone();
            async move { drop(alice(&archiving).archive(summary).await.unwrap()) }
        };
        let fault = || Meanwhile::once(Call::ReadStream, happens.clone()).skipping(skip);
        let (db, _) = faulty(&other, fault());
        let now = alice(&db).load().as_of(Position::MAX).await.unwrap();
        assert_eq!(now.cents, 10, "{skip}");
        let (db, _) = faulty(&other, fault());
        match alice(&db).load().at_version(3).await {
            Ok(then) => assert_eq!(then.cents, 6, "{skip}"),
            Err(error) => assert!(
                matches!(error, LoadError::Archived { .. }),
                "{skip}: {error}"
            ),
        }
    }
}

#[tokio::test]
async fn what_was_deleted_before_an_archive_stays_deleted() {
    let [db] = processes();
    alice(&db).run(|a| a.deposit(100)).await.unwrap();
    alice(&db).delete().await.unwrap();
    for cents in [1, 2] {
        alice(&db).run(|a| a.deposit(cents)).await.unwrap();
    }
    alice(&db).archive(summary).await.unwrap();
    assert_eq!(alice(&db).load().await.unwrap().cents, 3);
    alice(&db).delete().await.unwrap();
    assert_eq!(alice(&db).query(|a| a.cents).await.unwrap(), 0);
    alice(&db).run(|a| a.deposit(7)).await.unwrap();
    assert_eq!(alice(&db).load().await.unwrap().cents, 7);
    assert_eq!(alice(&db).load().at_version(4).await.unwrap().cents, 3);
}

#[tokio::test]
async fn an_archive_whose_answer_is_lost_has_its_summary_once() {
    let [plain] = processes();
    let (db, _) = faulty(&plain, AnswerLost::next(1));
    given(&plain, "account-alice", (1..=3).map(deposited)).await;
    alice(&db).archive(summary).await.unwrap();
    assert_eq!(
        (
            alice(&plain).load().await.unwrap().cents,
            head(&plain).await
        ),
        (6, 4)
    );
}

#[tokio::test]
async fn nothing_comes_between_a_last_event_and_its_deletion() {
    let [plain] = processes();
    let other = plain.clone();
    let deposits = move || {
        let db = other.clone();
        async move { drop(alice(&db).run(|a| a.deposit(7)).await.unwrap()) }
    };
    let (db, _) = faulty(&plain, Meanwhile::once(Call::ChangeStream, deposits));
    alice(&db).run(|a| a.deposit(5)).await.unwrap();
    let emptied = |account: &Account| {
        let cents = account.cents;
        Ok::<_, Refusal>(AccountEvent::Withdrawn { cents })
    };
    alice(&db).delete_with(emptied).await.unwrap();
    assert!(!alice(&plain).load().await.unwrap().exists());
    // The deposit in between is followed by another last event.
    assert_eq!(
        crate::store::since::<AccountEvent>(&plain, 0).await,
        [
            deposited(5),
            AccountEvent::Withdrawn { cents: 5 },
            deposited(7),
            AccountEvent::Withdrawn { cents: 7 },
        ]
    );
    alice(&db).run(|a| a.deposit(1)).await.unwrap();
    assert_eq!(alice(&plain).load().await.unwrap().cents, 1);
    let nobody = db.aggregate::<Account>("nobody");
    let refused = nobody.delete_with(emptied).await.unwrap_err();
    assert!(matches!(refused, CommandError::NotFound { .. }));
}
