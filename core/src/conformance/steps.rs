//! Steps of workers: whole or absent, fenced, each slot and partition by itself.

mod dead_letters;
mod dropped;
mod fenced;

use std::sync::Arc;

use super::view_words::*;
use super::words::*;
use super::{Dice, Fixture};
use crate::chrono::TimeDelta;
use crate::clock::ManualClock;
use crate::event::EventId;
use crate::position::{Partition, Position};
use crate::{
    Checkpoint, CommitError, DeadLetter, GenerationSpec, History, ReadRows, VIEW_KEY_BYTES_MAX,
    ViewCommit,
};

pub use self::dead_letters::{
    find_what_operators_decided, forget_the_reason_of_what_is_archived,
    keep_dead_letters_in_order_and_settle_them,
};
pub use self::dropped::{
    and_all_else_disturb_no_other_when_dropped,
    are_whole_or_absent_wherever_their_future_is_dropped,
    whose_answer_was_lost_are_resolved_by_the_checkpoint,
};
pub use self::fenced::{
    from_another_checkpoint_than_the_slots_are_fenced,
    from_one_place_by_many_at_once_are_taken_once,
    under_a_lease_that_ended_without_takeover_are_committed,
    under_a_lease_that_was_given_back_are_fenced, under_an_older_epoch_are_fenced,
};

/// A step to this position that changes something everywhere.
fn full(worker: &Worker, to: u64) -> ViewCommit {
    let mut step = worker.step(to);
    let value = to.to_string();
    step.to.state = value.clone().into();
    step.rows = vec![
        set("alice", value.clone(), &["x", &value]),
        set(&format!("row-{to:03}"), value.clone(), &["", "ä"]),
    ];
    step.versions = vec![
        row_version("alice", worker.at.get(), to, Some(&value)),
        row_version("gone", worker.at.get(), to, None),
    ];
    step.touched = vec![("alice".into(), at(to))];
    step.dead_letters = vec![
        dead_letters("bob", to, Some("a reason"), 1),
        dead_letters("bob", to - 1, None, 0),
    ];
    step
}

pub async fn change_everything_together(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let mut worker = Worker::begin(views(&*store), spec("a", &["one", "two"])).await;
    let first = full(&worker, 10);
    worker.take(views(&*store), first.clone()).await;
    let mut second = full(&worker, 20);
    second.rows.push(removed("row-010"));
    second.settled_letters = vec![("bob".into(), at(9))];
    worker.take(views(&*store), second.clone()).await;
    for _ in 0..2 {
        let picture = ViewPicture::of(views(&*store), &worker.generation).await;
        assert_eq!(picture.checkpoints, [second.to.clone()]);
        assert_eq!(keys_of(&picture.rows), ["alice", "row-020"]);
        assert_eq!(picture.rows[0].value, "20");
        let versions = |index: usize| {
            vec![
                first.versions[index].clone(),
                second.versions[index].clone(),
            ]
        };
        assert_eq!(picture.versions, [versions(0), versions(1), vec![]]);
        assert_eq!(
            picture.dead_letters,
            [
                &first.dead_letters[0],
                &second.dead_letters[1],
                &second.dead_letters[0]
            ]
            .map(DeadLetter::clone)
        );
        let touched = views(&*store)
            .touched(worker.id(), "alice", Position::START, Position::MAX, 9)
            .await
            .unwrap();
        assert_eq!(touched, [at(10), at(20)]);
    }
    let before = ViewPicture::of(views(&*store), &worker.generation).await;
    let store = reopen(fixture, store).await;
    assert_eq!(
        ViewPicture::of(views(&*store), &worker.generation).await,
        before
    );
    let third = full(&worker, 21);
    worker.take(views(&*store), third).await;
}

pub async fn that_can_never_succeed_change_nothing(fixture: &dyn Fixture) {
    type Spoil = fn(&mut ViewCommit);
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(
        views,
        GenerationSpec {
            slots: 2,
            ..spec("a", &["one", "two"])
        },
    )
    .await;
    let first = full(&worker, 10);
    worker.take(views, first).await;
    let spoils: [(&str, Spoil); 24] = [
        ("a key twice", |step| {
            step.rows.push(set("alice", "again", &["", ""]));
        }),
        ("a key changed and removed", |step| {
            step.rows.push(removed("alice"));
        }),
        ("too few entries", |step| {
            step.rows.push(set("carol", "1", &["x"]));
        }),
        ("too many entries", |step| {
            step.rows.push(set("carol", "1", &["x", "y", "z"]));
        }),
        ("no entries", |step| step.rows.push(set("carol", "1", &[]))),
        ("entries of a removed row", |step| {
            step.rows.push(crate::RowChange {
                value: None,
                ..set("z", "", &["", ""])
            });
        }),
        ("a long key", |step| {
            step.rows
                .push(set(&"x".repeat(VIEW_KEY_BYTES_MAX + 1), "1", &["", ""]));
        }),
        ("a long key to be removed", |step| {
            step.rows
                .push(removed(&"ä".repeat(VIEW_KEY_BYTES_MAX / 2 + 1)));
        }),
        ("a long entry", |step| {
            step.rows.push(set(
                "carol",
                "1",
                &["", &"x".repeat(VIEW_KEY_BYTES_MAX + 1)],
            ));
        }),
        ("a long key in the past", |step| {
            step.versions
                .push(row_version(&"x".repeat(2_000), 10, 11, None));
        }),
        ("another slot's lease", |step| step.to.slot = 1),
        ("no such slot", |step| step.to.slot = 2),
        ("no such partition", |step| step.to.partition = Partition(1)),
        ("backwards", |step| step.to.position = at(9)),
        ("a version that ends where one ends", |step| {
            step.versions = vec![row_version("alice", 0, 10, None)];
        }),
        ("runs that overlap", |step| {
            step.versions.push(row_version("alice", 15, 20, None));
        }),
        ("runs in the wrong order", |step| {
            step.versions = vec![
                row_version("c", 15, 20, None),
                row_version("c", 10, 15, None),
            ];
        }),
        ("an empty run", |step| {
            step.versions = vec![row_version("c", 15, 15, None)];
        }),
        ("a run beyond the step", |step| {
            step.versions = vec![row_version("c", 15, 21, None)];
        }),
        ("touched beyond the step", |step| {
            step.touched.push(("c".into(), at(21)));
        }),
        ("a dead letter twice", |step| {
            step.dead_letters.push(dead_letters("bob", 20, None, 0));
        }),
        ("a dead letter beyond the step", |step| {
            step.dead_letters.push(dead_letters("bob", 21, None, 0));
        }),
        ("a dead letter and settled", |step| {
            step.settled_letters.push(("bob".into(), at(20)));
        }),
        ("a dead letter elsewhere", |step| {
            step.dead_letters[0].partition = Partition(1);
        }),
    ];
    for (what, spoil) in spoils {
        let mut step = full(&worker, 20);
        spoil(&mut step);
        let error = refused_step(views, &worker.generation, step).await;
        assert!(
            matches!(error, CommitError::Invalid(_)),
            "{what}: {error:?}"
        );
    }
    let longest = "x".repeat(VIEW_KEY_BYTES_MAX);
    let mut step = full(&worker, 20);
    step.rows.push(set(&longest, "1", &[&longest, &longest]));
    step.versions.push(row_version(&longest, 10, 20, None));
    step.dead_letters.push(dead_letters(&longest, 20, None, 0));
    worker.take(views, step).await;
    let store = reopen(fixture, store).await;
    assert_eq!(
        ViewPicture::of(super::view_words::views(&*store), &worker.generation)
            .await
            .rows
            .len(),
        4
    );
}

pub async fn keep_of_the_past_what_the_view_keeps(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    for (history, versions, touched) in [
        (History::None, false, false),
        (History::Versions, true, false),
        (History::Bitemporal, true, true),
    ] {
        let worker = Worker::begin(
            views,
            GenerationSpec {
                history,
                ..spec("a", &[])
            },
        )
        .await;
        let mut step = worker.step(1);
        step.versions = vec![row_version("c", 0, 1, None)];
        assert_eq!(
            views.commit_view(step).await.is_ok(),
            versions,
            "{history:?}"
        );
        let worker = Worker::begin(
            views,
            GenerationSpec {
                history,
                ..spec("a", &[])
            },
        )
        .await;
        let mut step = worker.step(1);
        step.touched = vec![("c".into(), at(1))];
        assert_eq!(
            views.commit_view(step).await.is_ok(),
            touched,
            "{history:?}"
        );
    }
}

pub async fn of_other_slots_partitions_and_views_are_independent(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::default());
    let store = open_at(fixture, &clock).await;
    let views = views(&*store);
    let mut wide = GenerationSpec {
        partitions: 3,
        slots: 2,
        history: History::None,
        ..spec("a", &["one"])
    };
    let mut workers = Vec::new();
    for view in ["a", "b"] {
        wide.view = view.into();
        let generation = views.begin_generation(wide.clone()).await.unwrap();
        for slot in [1, 0] {
            let worker = Worker::on(views, generation.clone(), slot).await;
            workers.extend([2, 0, 1].map(|partition| Worker {
                partition: Partition(partition),
                ..worker.clone()
            }));
        }
    }
    let mut expected: Vec<(String, Checkpoint)> = Vec::new();
    for (number, worker) in (1..).zip(&mut workers) {
        let mut step = worker.step(number);
        step.rows = vec![set(
            &format!("{}/{}", worker.slot, worker.partition),
            number.to_string(),
            &["x"],
        )];
        step.dead_letters = vec![DeadLetter {
            partition: worker.partition,
            ..dead_letters("same", 1, None, worker.partition.0)
        }];
        step.to.state = format!("state {number}").into();
        expected.push((worker.generation.spec.view.clone(), step.to.clone()));
        worker.take(views, step).await;
    }
    expected.sort_by_key(|(view, to)| (view.clone(), to.slot, to.partition));
    for worker in [&workers[0], &workers[6]] {
        let of_view = expected
            .iter()
            .filter(|(view, _)| *view == worker.generation.spec.view);
        let picture = ViewPicture::of(views, &worker.generation).await;
        assert_eq!(
            picture.checkpoints,
            of_view.map(|(_, to)| to.clone()).collect::<Vec<_>>()
        );
        assert_eq!(
            keys_of(&picture.rows),
            ["0/0", "0/1", "0/2", "1/0", "1/1", "1/2"]
        );
        assert_eq!(
            picture
                .dead_letters
                .iter()
                .map(|letter| letter.partition.0)
                .collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert_eq!(
            views
                .read_rows(ReadRows::of(worker.id(), every_key()))
                .await
                .unwrap()
                .checkpoints,
            picture.checkpoints
        );
    }
    // Who loses one slot keeps the other; an event that is settled in one partition stays a dead
    // letter in the others.
    clock.advance(TimeDelta::seconds(10));
    granted(
        views
            .acquire_lease(&workers[0].lease.name, "worker-b", TTL)
            .await
            .unwrap(),
    );
    for (number, worker) in workers.iter_mut().enumerate() {
        let mut step = worker.step(20);
        step.settled_letters = vec![("same".into(), at(1))];
        if number < 3 {
            assert_fenced(&views.commit_view(step).await.unwrap_err(), worker);
        } else {
            worker.take(views, step).await;
        }
        if number == 3 {
            assert_eq!(
                views
                    .dead_letters(worker.id(), None, 9)
                    .await
                    .unwrap()
                    .len(),
                2
            );
        }
    }
}

pub async fn keep_the_state_byte_for_byte(fixture: &dyn Fixture) {
    let mut store = open(fixture).await;
    let mut worker = Worker::begin(views(&*store), spec("a", &[])).await;
    let mut dice = Dice::new(5);
    let mut noise: Vec<u8> = (0..10_000).map(|_| dice.roll(256) as u8).collect();
    noise[..3].fill(0);
    for (number, state) in (1..).zip([noise, Vec::new(), vec![0; 10_000], vec![0xff, 0]]) {
        let mut step = worker.step(number);
        step.to.state = state.into();
        step.to.event = (number != 2).then(EventId::random);
        let to = step.to.clone();
        worker.take(views(&*store), step).await;
        store = reopen(fixture, store).await;
        assert_eq!(views(&*store).checkpoints(worker.id()).await.unwrap(), [to]);
    }
}
