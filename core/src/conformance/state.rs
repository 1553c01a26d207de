//! What slots keep for themselves: written with the rows or not at all, and read in pages.

use std::sync::Arc;

use bytes::Bytes;

use super::view_words::*;
use super::words::*;
use super::{Dice, Fixture};
use crate::chrono::TimeDelta;
use crate::clock::ManualClock;
use crate::{
    CommitError, GenerationId, GenerationSpec, STATE_KEY_BYTES_MAX, ViewCommit, ViewStore,
};

type Entry = (Vec<u8>, Vec<u8>);

fn kept(key: &[u8], value: &[u8]) -> (Bytes, Option<Bytes>) {
    (
        Bytes::copy_from_slice(key),
        Some(Bytes::copy_from_slice(value)),
    )
}

fn forgotten(key: &[u8]) -> (Bytes, Option<Bytes>) {
    (Bytes::copy_from_slice(key), None)
}

/// All that a slot keeps, read in pages of so many bytes.
async fn read_by(views: &dyn ViewStore, id: GenerationId, slot: u16, bytes: usize) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    loop {
        let after = all.last().map(|(key, _)| key.clone());
        let page = views.read_state(id, slot, after.as_deref(), bytes).await;
        let page = page.unwrap();
        if page.is_empty() {
            return all;
        }
        let sizes: Vec<usize> = page.iter().map(|(k, v)| k.len() + v.len()).collect();
        let before_last: usize = sizes[..sizes.len() - 1].iter().sum();
        assert!(
            sizes.len() == 1 || before_last < bytes,
            "a page of {sizes:?} where it had to end at {bytes} bytes"
        );
        let page = page.into_iter().map(|(k, v)| (k.to_vec(), v.to_vec()));
        for entry in page {
            let last = all.last().map(|(key, _)| key.clone());
            assert!(last.is_none_or(|last| last < entry.0), "not in order");
            all.push(entry);
        }
    }
}

async fn read(views: &dyn ViewStore, of: &Worker) -> Vec<Entry> {
    read_by(views, of.id(), of.slot, 1 << 20).await
}

fn with_state(worker: &Worker, to: u64) -> ViewCommit {
    let mut step = worker.step(to);
    step.rows = vec![set("row", to.to_string(), &[])];
    step.state = vec![kept(b"open", to.to_string().as_bytes())];
    step
}

pub async fn is_written_with_the_rows_or_not_at_all(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &[])).await;
    let mut first = with_state(&worker, 1);
    first.state.push(kept(b"other", b"stays"));
    worker.take(views, first).await;
    let both = vec![
        (b"open".to_vec(), b"1".to_vec()),
        (b"other".to_vec(), b"stays".to_vec()),
    ];
    assert_eq!(read(views, &worker).await, both);
    let spoils: [fn(&mut ViewCommit); 4] = [
        |step| step.rows.push(removed("row")),
        |step| {
            step.versions = vec![
                row_version("row", 0, 9, None),
                row_version("row", 5, 9, None),
            ];
        },
        |step| step.state.push(forgotten(b"open")),
        |step| step.state.push(kept(&[7; STATE_KEY_BYTES_MAX + 1], b"")),
    ];
    for spoil in spoils {
        let mut step = with_state(&worker, 2);
        step.state.push(forgotten(b"other"));
        spoil(&mut step);
        let error = refused_step(views, &worker.generation, step).await;
        assert!(matches!(error, CommitError::Invalid(_)), "{error:?}");
        assert_eq!(read(views, &worker).await, both);
    }
    let mut second = with_state(&worker, 2);
    second.state.extend([
        forgotten(b"other"),
        forgotten(b"never there"),
        kept(&[7; STATE_KEY_BYTES_MAX], b""),
    ]);
    worker.take(views, second).await;
    let now = vec![
        (vec![7; STATE_KEY_BYTES_MAX], Vec::new()),
        (b"open".to_vec(), b"2".to_vec()),
    ];
    assert_eq!(read(views, &worker).await, now);
}

pub async fn is_fenced_by_the_epoch(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::default());
    let store = open_at(fixture, &clock).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &[])).await;
    let zombie = worker.clone();
    clock.advance(TimeDelta::seconds(10));
    let taken = views
        .acquire_lease(&worker.lease.name, "worker-b", TTL)
        .await;
    worker.lease = granted(taken.unwrap());
    let step = with_state(&worker, 1);
    worker.take(views, step).await;
    let mut late = with_state(
        &Worker {
            at: worker.at,
            ..zombie.clone()
        },
        2,
    );
    late.state.push(kept(b"zombie", b"was here"));
    assert_fenced(
        &refused_step(views, &worker.generation, late).await,
        &zombie,
    );
    let mut elsewhere = with_state(&worker, 2);
    elsewhere.from = at(0);
    assert_fenced(
        &refused_step(views, &worker.generation, elsewhere).await,
        &worker,
    );
    let only = vec![(b"open".to_vec(), b"1".to_vec())];
    assert_eq!(read(views, &worker).await, only);
}

pub async fn is_read_in_the_order_of_bytes(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(
        views,
        GenerationSpec {
            slots: 2,
            ..spec("a", &[])
        },
    )
    .await;
    let other = Worker::on(views, worker.generation.clone(), 1).await;
    let mut keys: Vec<Vec<u8>> = (0..=255_u8)
        .flat_map(|byte| [vec![byte], vec![0, byte], vec![byte, 0], vec![0xff, byte]])
        .collect();
    keys.push(Vec::new());
    keys.push(vec![0xff; STATE_KEY_BYTES_MAX]);
    keys.sort();
    keys.dedup();
    let mut step = worker.step(1);
    step.state = keys.iter().rev().map(|key| kept(key, key)).collect();
    worker.take(views, step).await;
    let mut step = other.step(1);
    step.state = vec![kept(b"a", b"of another slot")];
    views.commit_view(step).await.unwrap();
    let expected: Vec<Entry> = keys.iter().map(|key| (key.clone(), key.clone())).collect();
    for bytes in [0, 1, 7, 1 << 20] {
        assert_eq!(read_by(views, worker.id(), 0, bytes).await, expected);
    }
    let of_other = vec![(b"a".to_vec(), b"of another slot".to_vec())];
    assert_eq!(read(views, &other).await, of_other);
}

pub async fn is_read_in_pages_by_bytes(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &[])).await;
    let entries: Vec<Entry> = (0..50_u8)
        .map(|n| (vec![n], vec![n; usize::from(n) * 13]))
        .collect();
    let mut step = worker.step(1);
    step.state = entries
        .iter()
        .map(|(key, value)| kept(key, value))
        .collect();
    worker.take(views, step).await;
    for bytes in [0, 1, 100, 640, 5_000, usize::MAX] {
        let all = read_by(views, worker.id(), 0, bytes).await;
        assert_eq!(all, entries, "in pages of {bytes} bytes");
    }
    let page = views.read_state(worker.id(), 0, Some(&[40]), 1_000).await;
    let keys: Vec<u8> = page.unwrap().iter().map(|(key, _)| key[0]).collect();
    assert_eq!(keys, [41, 42]);
    let end = views.read_state(worker.id(), 0, Some(&[49]), 1_000).await;
    assert!(end.unwrap().is_empty());
}

pub async fn holds_a_value_of_a_mebibyte(fixture: &dyn Fixture) {
    let mut store = open(fixture).await;
    let mut worker = Worker::begin(views(&*store), spec("a", &[])).await;
    let mut dice = Dice::new(3);
    let noise: Vec<u8> = (0..1 << 20).map(|_| dice.roll(256) as u8).collect();
    for (number, value) in (1..).zip([noise, vec![0; 1 << 20], Vec::new()]) {
        let mut step = worker.step(number);
        step.state = vec![kept(b"large", &value)];
        worker.take(views(&*store), step).await;
        store = reopen(fixture, store).await;
        let found = read(views(&*store), &worker).await;
        assert!(found == [(b"large".to_vec(), value)], "step {number}");
    }
}

pub async fn is_gone_with_its_generation(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut dropped = Worker::begin(views, spec("a", &[])).await;
    let mut stays = Worker::begin(views, spec("a", &[])).await;
    for worker in [&mut dropped, &mut stays] {
        let step = with_state(worker, 1);
        worker.take(views, step).await;
    }
    views.drop_generation(dropped.id()).await.unwrap();
    let asked = views.read_state(dropped.id(), 0, None, 9).await;
    assert_gone(asked, dropped.id());
    let only = vec![(b"open".to_vec(), b"1".to_vec())];
    assert_eq!(read(views, &stays).await, only);
    let next = Worker::begin(views, spec("a", &[])).await;
    assert_eq!(read(views, &next).await, []);
}

pub async fn is_there_after_reopening(fixture: &dyn Fixture) {
    let mut store = open(fixture).await;
    let mut worker = Worker::begin(views(&*store), spec("a", &[])).await;
    for number in 1..=3 {
        let mut step = with_state(&worker, number);
        step.state.push(kept(&[number as u8], b"new"));
        step.state.push(forgotten(&[number as u8 - 1]));
        worker.take(views(&*store), step).await;
        store = reopen(fixture, store).await;
        let expected = vec![
            (vec![number as u8], b"new".to_vec()),
            (b"open".to_vec(), number.to_string().into_bytes()),
        ];
        assert_eq!(read(views(&*store), &worker).await, expected);
    }
}
