//! Snapshots: kept beside the log, found by stream, fold and version.

use super::words::*;
use super::{Dice, Fixture};
use crate::snapshot::{FoldId, Snapshot};
use crate::store::{SnapshotStore, Store};
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, StreamChange};

fn snapshots(store: &dyn Store) -> &dyn SnapshotStore {
    store.snapshots().expect("the trait was declared")
}

fn fold(version: u32) -> FoldId {
    FoldId::new("bank::Account", version)
}

async fn save(
    store: &dyn Store,
    of: &StreamId,
    fold: FoldId,
    version: u64,
    state: impl Into<Vec<u8>>,
) -> Snapshot {
    let snapshot = Snapshot::new(
        of.clone(),
        fold,
        Version::new(version),
        "json",
        state.into(),
    );
    snapshots(store)
        .save_snapshot(snapshot.clone())
        .await
        .unwrap();
    snapshot
}

async fn newest(store: &dyn Store, of: &StreamId, fold: FoldId, at_most: u64) -> Option<u64> {
    let found = snapshots(store)
        .newest_snapshot(of, &fold, Version::new(at_most))
        .await
        .unwrap();
    found.map(|snapshot| snapshot.version.get())
}

pub async fn are_found_by_the_newest_version_that_was_asked_for(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let of = stream("account-1");
    for version in [13, 11, 15, 12, 14] {
        save(&*store, &of, fold(1), version, "{}").await;
    }
    for (at_most, found) in [
        (13, Some(13)),
        (10, None),
        (11, Some(11)),
        (15, Some(15)),
        (u64::MAX, Some(15)),
        (0, None),
    ] {
        assert_eq!(
            newest(&*store, &of, fold(1), at_most).await,
            found,
            "at most {at_most}"
        );
    }
    snapshots(&*store)
        .delete_snapshot(&of, &fold(1), Version::new(13))
        .await
        .unwrap();
    assert_eq!(
        newest(&*store, &of, fold(1), 13).await,
        Some(12),
        "13 was deleted"
    );
    snapshots(&*store)
        .delete_snapshot(&of, &fold(1), Version::new(13))
        .await
        .unwrap();
    assert_eq!(
        newest(&*store, &of, fold(1), 99).await,
        Some(15),
        "deleting what is not there changes nothing"
    );
}

pub async fn at_the_same_version_replace_each_other(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let of = stream("account-1");
    save(&*store, &of, fold(1), 11, "first").await;
    let mut second = Snapshot::new(
        of.clone(),
        fold(1),
        Version::new(11),
        "cbor",
        b"second, and longer".as_slice(),
    );
    snapshots(&*store)
        .save_snapshot(second.clone())
        .await
        .unwrap();
    assert_eq!(
        snapshots(&*store)
            .newest_snapshot(&of, &fold(1), Version::MAX)
            .await
            .unwrap(),
        Some(second.clone())
    );
    second.payload = "".into();
    snapshots(&*store)
        .save_snapshot(second.clone())
        .await
        .unwrap();
    assert_eq!(
        snapshots(&*store)
            .newest_snapshot(&of, &fold(1), Version::MAX)
            .await
            .unwrap(),
        Some(second)
    );
}

pub async fn of_another_fold_or_stream_are_not_given(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let of = stream("account-1");
    let near = stream("account-10");
    save(&*store, &of, fold(1), 11, "{}").await;
    save(&*store, &of, fold(2), 5, "{}").await;
    save(&*store, &of, FoldId::new("bank::Accounts", 1), 20, "{}").await;
    save(&*store, &near, fold(1), 30, "{}").await;
    let cases = [
        (&of, fold(1), Some(11)),
        (&of, fold(2), Some(5)),
        (&of, fold(3), None),
        (&of, FoldId::new("bank::account", 1), None),
        (&of, FoldId::new("bank::Accounts", 1), Some(20)),
        (&near, fold(1), Some(30)),
        (&near, fold(2), None),
    ];
    for (of, fold, found) in cases {
        assert_eq!(
            newest(&*store, of, fold.clone(), 99).await,
            found,
            "{of} {fold:?}"
        );
    }
    snapshots(&*store)
        .delete_snapshot(&of, &fold(2), Version::new(11))
        .await
        .unwrap();
    assert_eq!(
        newest(&*store, &of, fold(1), 99).await,
        Some(11),
        "that of another fold is not deleted"
    );
}

pub async fn come_back_byte_for_byte_after_reopening(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let mut dice = Dice::new(11);
    let noise: Vec<u8> = (0..10_000).map(|_| dice.roll(256) as u8).collect();
    let of = stream("konto-Ä'1");
    let fold = FoldId::new("crate::Größe<'a, \"x\">", u32::MAX);
    let kept = save(&*store, &of, fold.clone(), i64::MAX as u64, noise).await;
    let store = reopen(fixture, store).await;
    assert_eq!(
        snapshots(&*store)
            .newest_snapshot(&of, &fold, Version::MAX)
            .await
            .unwrap(),
        Some(kept)
    );
}

pub async fn change_nothing_of_the_log(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let of = stream("account-1");
    append(&*store, &of, events(3)).await;
    unchanged(&*store, &[&of], save(&*store, &of, fold(1), 3, "{}")).await;
    unchanged(
        &*store,
        &[&of],
        snapshots(&*store).delete_snapshot(&of, &fold(1), Version::new(3)),
    )
    .await
    .unwrap();
}

pub async fn saved_by_many_at_once_are_all_kept(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    at_once((0..16).map(|task| {
        let store = std::sync::Arc::clone(&store);
        async move {
            save(
                &*store,
                &stream(format!("account-{}", task % 4)),
                fold(1),
                task,
                "{}",
            )
            .await
        }
    }))
    .await;
    for n in 0..4 {
        let of = stream(format!("account-{n}"));
        for version in (n..16).step_by(4) {
            assert_eq!(newest(&*store, &of, fold(1), version).await, Some(version));
        }
    }
}

pub async fn of_an_archived_stream_are_removed_with_its_events(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let of = stream("account-1");
    let other = stream("account-2");
    for stream in [&of, &other] {
        append(&*store, stream, events(3)).await;
        save(&*store, stream, fold(1), 2, "{}").await;
        save(&*store, stream, fold(2), 3, "{}").await;
    }
    let before = Version::new(3);
    let archive = ChangeStream::new(&of, StreamChange::Archive { before });
    store.change_stream(archive.clone()).await.unwrap();
    for version in [1, 2] {
        assert_eq!(newest(&*store, &of, fold(version), 9).await, None);
        assert!(newest(&*store, &other, fold(version), 9).await.is_some());
    }
    // One that was taken since is kept, also when the archive is asked for again.
    save(&*store, &of, fold(1), 3, "{}").await;
    store.change_stream(archive).await.unwrap();
    assert_eq!(newest(&*store, &of, fold(1), 9).await, Some(3));
}
