//! Snapshots save time and nothing else.

use annals_core::conformance::faulty::{Call, FailsOnce};
use annals_core::{Aggregate, Annals, Codec, FoldId, Json, Snapshot, Snapshots, StreamId, Version};
use serde::{Deserialize, Serialize};

use crate::bank::{Account, AccountEvent, Refusal, deposited};
use crate::store::{alice, faulty, given, processes};

/// An account of which a snapshot is kept every three events; it counts what it was folded from
/// since the last one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Snapped {
    pub(crate) account: Account,
    #[serde(skip)]
    pub(crate) folded: u64,
}

impl Aggregate for Snapped {
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        self.account.apply(event);
        self.folded += 1;
    }

    fn snapshots() -> Option<Snapshots<Snapped>> {
        Some(Snapshots::every(3).fold_version(2))
    }
}

fn fold(version: u32) -> FoldId {
    FoldId::new(std::any::type_name::<Snapped>(), version)
}

fn stream() -> StreamId {
    StreamId::new("account-alice").unwrap()
}

async fn deposit(db: &Annals, times: u64) {
    for _ in 0..times {
        db.aggregate::<Snapped>("alice")
            .run(|_| Ok::<_, Refusal>(deposited(1)))
            .await
            .unwrap();
    }
}

async fn newest(db: &Annals) -> Option<u64> {
    let store = db.store().snapshots().unwrap();
    store
        .newest_snapshot(&stream(), &fold(2), Version::MAX)
        .await
        .unwrap()
        .map(|found| found.version.get())
}

async fn keep(db: &Annals, fold: FoldId, version: u64, payload: impl Into<Vec<u8>>) {
    let snapshot = Snapshot::new(
        stream(),
        fold,
        Version::new(version),
        "json",
        payload.into(),
    );
    db.store()
        .snapshots()
        .unwrap()
        .save_snapshot(snapshot)
        .await
        .unwrap();
}

/// A state that no history has, as a snapshot holds it.
fn forged(cents: i64) -> Vec<u8> {
    let account = Account {
        cents,
        ..Account::default()
    };
    Json::encode(&Snapped { account, folded: 0 }).unwrap()
}

#[tokio::test]
async fn one_is_kept_whenever_the_last_one_is_old_enough() {
    let [db, later] = processes();
    let mut kept = Vec::new();
    for _ in 0..7 {
        deposit(&db, 1).await;
        kept.push(newest(&db).await);
    }
    assert_eq!(
        kept,
        [None, None, Some(3), Some(3), Some(3), Some(6), Some(6)]
    );
    // A process that starts later counts on from the one that it found.
    deposit(&later, 1).await;
    assert_eq!(newest(&db).await, Some(6));
    deposit(&later, 1).await;
    assert_eq!(newest(&db).await, Some(9));
    // Several events at once are one commit.
    let four = |_: &Snapped| Ok::<_, Refusal>(vec![deposited(1); 4]);
    later.aggregate::<Snapped>("alice").run(four).await.unwrap();
    assert_eq!(newest(&db).await, Some(13));
}

#[tokio::test]
async fn a_load_folds_only_what_came_after_the_snapshot() {
    let [db] = processes();
    deposit(&db, 8).await;
    let snapped = db.aggregate::<Snapped>("alice");
    let now = snapped.load().await.unwrap();
    assert_eq!((now.account.cents, now.folded), (8, 2));
    for (version, folded) in [(2, 2), (3, 0), (5, 2), (6, 0), (7, 1)] {
        let then = snapped.load().at_version(version).await.unwrap();
        assert_eq!(
            (then.account.cents, then.folded),
            (version as i64, folded),
            "{version}"
        );
    }
    let then = snapped.load().as_of("2099-01-01T00:00:00Z").await.unwrap();
    assert_eq!(then.folded, 2);
    // What had happened by a time cannot start from what was known at another.
    let then = snapped
        .load()
        .valid_at("2099-01-01T00:00:00Z")
        .await
        .unwrap();
    assert_eq!((then.account.cents, then.folded), (8, 8));
}

#[tokio::test]
async fn one_that_is_stale_unreadable_or_ahead_is_ignored() {
    for (what, of, version, payload) in [
        ("an older fold", fold(1), 2, forged(1_000)),
        ("a newer fold", fold(3), 2, forged(1_000)),
        ("no JSON", fold(2), 2, b"{".to_vec()),
        ("another shape", fold(2), 2, b"[1, 2]".to_vec()),
        ("beyond the end of the stream", fold(2), 9, forged(1_000)),
    ] {
        let [db] = processes();
        given(&db, "account-alice", [deposited(1), deposited(2)]).await;
        keep(&db, of, version, payload).await;
        let snapped = db.aggregate::<Snapped>("alice");
        assert_eq!(snapped.load().await.unwrap().account.cents, 3, "{what}");
        assert_eq!(
            snapped.load().at_version(2).await.unwrap().account.cents,
            3,
            "{what}"
        );
        deposit(&db, 1).await;
        assert_eq!(
            db.aggregate::<Snapped>("alice")
                .query(|s| s.account.cents)
                .await
                .unwrap(),
            4,
            "{what}"
        );
    }
    // A good one of that kind is used: the rows above would show it.
    let [db] = processes();
    given(&db, "account-alice", [deposited(1), deposited(2)]).await;
    keep(&db, fold(2), 2, forged(1_000)).await;
    assert_eq!(
        db.aggregate::<Snapped>("alice")
            .load()
            .await
            .unwrap()
            .account
            .cents,
        1_000
    );
}

#[tokio::test]
async fn a_deletion_makes_older_ones_unusable() {
    let [db, other] = processes();
    deposit(&db, 3).await;
    alice(&other).delete().await.unwrap();
    let snapped = other.aggregate::<Snapped>("alice");
    assert_eq!(snapped.load().await.unwrap().account, Account::default());
    deposit(&other, 1).await;
    assert_eq!(
        (
            snapped.load().await.unwrap().account.cents,
            newest(&db).await
        ),
        (1, Some(3))
    );
    assert_eq!(snapped.load().at_version(3).await.unwrap().account.cents, 3);
    assert_eq!(snapped.load().at_version(4).await.unwrap().account.cents, 1);
    deposit(&other, 2).await;
    assert_eq!(
        (newest(&db).await, snapped.load().await.unwrap().folded),
        (Some(6), 0)
    );
}

#[tokio::test]
async fn a_failing_snapshot_store_fails_no_command_and_no_query() {
    let [plain] = processes();
    let (db, store) = faulty(
        &plain,
        FailsOnce::at([Call::NewestSnapshot, Call::SaveSnapshot]),
    );
    deposit(&db, 3).await;
    assert_eq!((store.fault().left(), newest(&plain).await), (0, None));
    deposit(&db, 1).await;
    assert_eq!(
        newest(&plain).await,
        Some(4),
        "the next commit makes up for it"
    );
    store.fault().fail_next(Call::NewestSnapshot);
    let state = db.aggregate::<Snapped>("alice").load().await.unwrap();
    assert_eq!((state.account.cents, state.folded), (4, 4));
}
