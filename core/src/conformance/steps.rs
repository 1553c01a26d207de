//! Steps of workers: whole or absent, fenced, each slot and partition by itself.

use std::sync::Arc;

use async_trait::async_trait;

use super::faulty::{Call, FailsOnce, FaultyStore, StoreFault};
use super::view_words::*;
use super::words::*;
use super::{Dice, Fixture, drop_after};
use crate::chrono::TimeDelta;
use crate::clock::ManualClock;
use crate::error::{Failure, StoreError};
use crate::event::EventId;
use crate::position::{Partition, Position};
use crate::store::Store;
use crate::stream::Version;
use crate::stream_state::{ChangeStream, StreamChange};
use crate::{
    Checkpoint, CommitError, DeadLetter, GenerationSpec, History, ReadRows, SkipDecision,
    VIEW_KEY_BYTES_MAX, ViewCommit, ViewStore,
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
        run("alice", worker.at.get(), to, Some(&value)),
        run("gone", worker.at.get(), to, None),
    ];
    step.touched = vec![("alice".into(), at(to))];
    step.park = vec![
        dead_letters("bob", to, Some("a cause"), 1),
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
    second.unpark = vec![("bob".into(), at(9))];
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
            [&first.park[0], &second.park[1], &second.park[0]].map(DeadLetter::clone)
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
            step.versions.push(run(&"x".repeat(2_000), 10, 11, None));
        }),
        ("another slot's lease", |step| step.to.slot = 1),
        ("no such slot", |step| step.to.slot = 2),
        ("no such partition", |step| step.to.partition = Partition(1)),
        ("backwards", |step| step.to.position = at(9)),
        ("a version that ends where one ends", |step| {
            step.versions = vec![run("alice", 0, 10, None)];
        }),
        ("runs that overlap", |step| {
            step.versions.push(run("alice", 15, 20, None));
        }),
        ("runs in the wrong order", |step| {
            step.versions = vec![run("c", 15, 20, None), run("c", 10, 15, None)];
        }),
        ("an empty run", |step| {
            step.versions = vec![run("c", 15, 15, None)];
        }),
        ("a run beyond the step", |step| {
            step.versions = vec![run("c", 15, 21, None)];
        }),
        ("touched beyond the step", |step| {
            step.touched.push(("c".into(), at(21)));
        }),
        ("a dead letter twice", |step| {
            step.park.push(dead_letters("bob", 20, None, 0));
        }),
        ("a dead letter beyond the step", |step| {
            step.park.push(dead_letters("bob", 21, None, 0));
        }),
        ("a dead letter and settled", |step| {
            step.unpark.push(("bob".into(), at(20)));
        }),
        ("a dead letter elsewhere", |step| {
            step.park[0].partition = Partition(1);
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
    step.versions.push(run(&longest, 10, 20, None));
    step.park.push(dead_letters(&longest, 20, None, 0));
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
        step.versions = vec![run("c", 0, 1, None)];
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

pub async fn under_an_older_epoch_are_fenced(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::default());
    let mut store = open_at(fixture, &clock).await;
    let mut worker = Worker::begin(views(&*store), spec("a", &["one", "two"])).await;
    let first = full(&worker, 10);
    worker.take(views(&*store), first).await;
    for (round, owner) in ["worker-b", "worker-a", "worker-a"].into_iter().enumerate() {
        let zombie = worker.clone();
        clock.advance(TimeDelta::seconds(10));
        let taken = views(&*store)
            .acquire_lease(&worker.lease.name, owner, TTL)
            .await
            .unwrap();
        worker.lease = granted(taken);
        assert!(worker.lease.epoch > zombie.lease.epoch);
        let to = 20 + round as u64 * 10;
        let error = refused_step(views(&*store), &worker.generation, full(&zombie, to)).await;
        assert_fenced(&error, &zombie);
        store = reopen_at(fixture, &clock, store).await;
        let step = full(&worker, to);
        worker.take(views(&*store), step).await;
        let zombie = Worker {
            at: worker.at,
            ..zombie
        };
        assert_fenced(
            &refused_step(views(&*store), &worker.generation, full(&zombie, to + 5)).await,
            &zombie,
        );
        // Nor helps it to ask with another's name, or with an epoch that is still to come.
        for (owner, epoch) in [
            ("worker-z", worker.lease.epoch),
            (owner, worker.lease.epoch + 1),
        ] {
            let mut forged = worker.clone();
            forged.lease.owner = owner.into();
            forged.lease.epoch = epoch;
            assert_fenced(
                &refused_step(views(&*store), &worker.generation, full(&forged, to + 5)).await,
                &forged,
            );
        }
    }
}

pub async fn under_a_lease_that_was_given_back_are_fenced(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let worker = Worker::begin(views, spec("a", &["one", "two"])).await;
    views.release_lease(&worker.lease).await.unwrap();
    assert_fenced(
        &refused_step(views, &worker.generation, full(&worker, 10)).await,
        &worker,
    );
    let mut never = Worker {
        generation: views
            .begin_generation(spec("b", &["one", "two"]))
            .await
            .unwrap(),
        ..worker
    };
    never.lease.name = never.generation.lease_name(0);
    assert_fenced(
        &refused_step(views, &never.generation, full(&never, 10)).await,
        &never,
    );
}

/// The end of a lease fences no commit, so that a worker on a busy machine is not thrown back; the
/// epoch does.
pub async fn under_a_lease_that_has_ended_and_was_not_taken_are_taken(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::default());
    let store = open_at(fixture, &clock).await;
    let mut worker = Worker::begin(views(&*store), spec("a", &["one", "two"])).await;
    clock.advance(TimeDelta::days(1));
    let step = full(&worker, 10);
    worker.take(views(&*store), step).await;
    assert_eq!(
        ViewPicture::of(views(&*store), &worker.generation)
            .await
            .checkpoints[0]
            .position,
        at(10)
    );
}

pub async fn from_where_the_slot_does_not_stand_are_fenced(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &["one", "two"])).await;
    let ahead = Worker {
        at: at(1),
        ..worker.clone()
    };
    assert_fenced(
        &refused_step(views, &worker.generation, full(&ahead, 5)).await,
        &worker,
    );
    let first = full(&worker, 10);
    worker.take(views, first.clone()).await;
    // Repeated after it was taken: the checkpoint is another one, and that is what the worker must
    // hear.
    assert_fenced(
        &refused_step(views, &worker.generation, first).await,
        &worker,
    );
    for from in [0, 9, 11] {
        let elsewhere = Worker {
            at: at(from),
            ..worker.clone()
        };
        assert_fenced(
            &refused_step(views, &worker.generation, full(&elsewhere, 20)).await,
            &worker,
        );
    }
    // A step on the spot: a dead letter is settled, nothing else was read.
    let mut step = worker.step(10);
    step.unpark = vec![("bob".into(), at(10))];
    step.versions = vec![run("bob", 4, 5, Some("settled"))];
    worker.take(views, step).await;
    assert_eq!(
        views
            .dead_letters(worker.id(), None, 9)
            .await
            .unwrap()
            .len(),
        1
    );
}

pub async fn from_one_place_by_many_at_once_are_taken_once(fixture: &dyn Fixture) {
    let one = open(fixture).await;
    let two = another(fixture, &one).await;
    let mut worker = Worker::begin(views(&*one), spec("a", &["one", "two"])).await;
    for round in 1..=10 {
        let answers = at_once((0..6).map(|task| {
            let store = Arc::clone(if task % 2 == 0 { &one } else { &two });
            let mut step = full(&worker, round * 10);
            step.rows[0].value = Some(task.to_string().into());
            async move { views(&*store).commit_view(step).await }
        }))
        .await;
        let winner = answers
            .iter()
            .position(Result::is_ok)
            .expect("somebody wins");
        let errors: Vec<_> = answers
            .iter()
            .filter_map(|answer| answer.as_ref().err())
            .collect();
        assert_eq!(errors.len(), 5, "{answers:?}");
        errors
            .into_iter()
            .for_each(|error| assert_fenced(error, &worker));
        worker.at = at(round * 10);
        let picture = ViewPicture::of(views(&*one), &worker.generation).await;
        assert_eq!(picture.rows[0].value, winner.to_string());
        assert_eq!(
            (picture.rows.len(), picture.versions[0].len()),
            (round as usize + 1, round as usize)
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
        step.park = vec![DeadLetter {
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
                .map(|dead_letters| dead_letters.partition.0)
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
        step.unpark = vec![("same".into(), at(1))];
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

pub async fn set_events_aside_in_order_and_settle_them(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &[])).await;
    let mut step = worker.step(300);
    let mut all = vec![
        dead_letters("B", 7, Some("ä 'cause'\nwith lines"), 1),
        dead_letters("a", 2, Some(""), u32::MAX),
        dead_letters("a", 9, None, 0),
        dead_letters("a", 10, None, 0),
        dead_letters("a", 256, None, 0),
        dead_letters("ab", 1, None, 0),
        dead_letters("ä", 3, None, 0),
    ];
    step.park = all.iter().rev().cloned().collect();
    worker.take(views, step).await;
    for limit in [1, 2, 3, 7, 100] {
        let mut found = Vec::new();
        let mut after = None::<DeadLetter>;
        loop {
            let place = after
                .as_ref()
                .map(|last| (last.key.as_str(), last.partition, last.position));
            let page = views.dead_letters(worker.id(), place, limit).await.unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            assert_ne!(Some(last), after.as_ref(), "a page that gets nowhere");
            after = Some(last.clone());
            found.extend(page);
        }
        assert_eq!(found, all, "by {limit}");
    }
    // Tried again in vain, settled, and never a dead letter.
    all[1] = DeadLetter {
        cause: Some("another".into()),
        attempts: 2,
        dead_since: recorded(5),
        ..all[1].clone()
    };
    let mut step = worker.step(300);
    step.park = vec![all[1].clone()];
    step.unpark = vec![
        ("a".into(), at(9)),
        ("nobody".into(), at(1)),
        ("ab".into(), at(2)),
        ("b".into(), at(7)),
    ];
    worker.take(views, step).await;
    all.remove(2);
    let store = reopen(fixture, store).await;
    assert_eq!(
        super::view_words::views(&*store)
            .dead_letters(worker.id(), None, 100)
            .await
            .unwrap(),
        all
    );
}

pub async fn forget_the_cause_of_what_is_archived(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let of = stream("account-1");
    let other = stream("account-2");
    let removed = append(&*store, &of, events(3)).await;
    let kept = append(&*store, &other, events(1)).await;
    let places = removed.events().iter().chain(kept.events());
    // In every generation, of this version and of others.
    let mut workers = Vec::new();
    for version in [1, 2] {
        let mut spec = spec("accounts", &[]);
        spec.version = version;
        let worker = Worker::begin(views, spec).await;
        let mut step = worker.step(9);
        step.park = places
            .clone()
            .map(|placed| DeadLetter {
                event: placed.id,
                ..dead_letters(
                    placed.stream.as_str(),
                    placed.position.get(),
                    Some("said Alice Smith"),
                    1,
                )
            })
            .collect();
        step.park.push(dead_letters("zoe", 9, None, 0));
        views.commit_view(step).await.unwrap();
        workers.push(worker);
    }
    let before = Version::new(3);
    let archive = ChangeStream::new(&of, StreamChange::Archive { before });
    store.change_stream(archive).await.unwrap();
    for worker in &workers {
        let letters = views.dead_letters(worker.id(), None, 9).await.unwrap();
        let causes: Vec<_> = letters
            .iter()
            .map(|letter| letter.cause.as_deref())
            .collect();
        let said = Some("said Alice Smith");
        let gone = Some(DeadLetter::ARCHIVED);
        assert_eq!(causes, [gone, gone, said, said, None]);
        assert_eq!(letters[0].attempts, 1);
    }
}

pub async fn find_what_people_decided(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let skip_decision =
        |view: &str, partition, position, key: Option<&str>, reason: &str| SkipDecision {
            view: view.into(),
            partition: Partition(partition),
            position: at(position),
            event: EventId::random(),
            key: key.map(Into::into),
            reason: reason.into(),
            decided_at: recorded(position),
        };
    // One event may be left out for some of its keys, or for all; the empty text is a key.
    let places = [
        (0, 9, None),
        (0, 10, Some("")),
        (0, 10, Some("ä")),
        (0, 256, None),
        (0, 256, Some("")),
        (1, 1, None),
    ];
    let mut kept =
        places.map(|(of, position, key)| skip_decision("a", of, position, key, "ä 'reason'"));
    let others = [
        skip_decision("A", 0, 9, None, "other"),
        skip_decision("a2", 0, 9, None, "other"),
    ];
    for skip_decision in kept.iter().rev().chain(&others) {
        views(&*store)
            .save_skip_decision(skip_decision.clone())
            .await
            .unwrap();
    }
    assert_eq!(views(&*store).skip_decisions("a").await.unwrap(), kept);
    kept[1] = SkipDecision {
        decided_at: recorded(99),
        ..skip_decision("a", 0, 10, Some(""), "decided again")
    };
    views(&*store)
        .save_skip_decision(kept[1].clone())
        .await
        .unwrap();
    let store = reopen(fixture, store).await;
    assert_eq!(views(&*store).skip_decisions("a").await.unwrap(), kept);
    assert_eq!(views(&*store).skip_decisions("a2").await.unwrap().len(), 1);
    assert_eq!(views(&*store).skip_decisions("nobody").await.unwrap(), []);
}

pub async fn whose_answer_was_lost_are_told_apart_by_where_the_slot_stands(fixture: &dyn Fixture) {
    let store: Arc<dyn Store> = open(fixture).await;
    let mut worker = Worker::begin(views(&*store), spec("a", &["one", "two"])).await;
    // Before the step was taken, and after.
    let faults: [Arc<dyn Store>; 2] = [
        FaultyStore::new(Arc::clone(&store), FailsOnce::at([Call::CommitView])),
        FaultyStore::new(Arc::clone(&store), LosesAnswers),
    ];
    for (round, faulty) in faults.iter().enumerate() {
        let to = (round as u64 + 1) * 10;
        let step = full(&worker, to);
        let error = views(&**faulty)
            .commit_view(step.clone())
            .await
            .unwrap_err();
        assert!(
            matches!(&error, CommitError::Store(error) if error.failure() == Failure::Unavailable),
            "{error:?}"
        );
        let checkpoints = views(&**faulty).checkpoints(worker.id()).await.unwrap();
        match round {
            0 => assert!(
                checkpoints.is_empty() && views(&**faulty).commit_view(step.clone()).await.is_ok()
            ),
            _ => assert_eq!(checkpoints, std::slice::from_ref(&step.to)),
        }
        assert_fenced(
            &refused_step(views(&*store), &worker.generation, step).await,
            &worker,
        );
        worker.at = at(to);
    }
}

/// Every step is taken, and who took it never hears of it.
#[derive(Debug)]
struct LosesAnswers;

#[async_trait]
impl StoreFault for LosesAnswers {
    async fn after(&self, call: Call) -> Result<(), StoreError> {
        match call {
            Call::CommitView => Err(StoreError::new(
                Failure::Unavailable,
                "the connection was lost before the answer",
            )),
            _ => Ok(()),
        }
    }
}

/// What was dropped may still happen; asking again tells, and nothing is ever there in part.
pub async fn are_whole_or_absent_wherever_their_future_is_dropped(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &["one", "two"])).await;
    for polls in 0..1_000 {
        let to = (polls as u64 + 1) * 10;
        let step = full(&worker, to);
        let done = drop_after(polls, views.commit_view(step.clone())).await;
        let page = views
            .read_rows(ReadRows::of(worker.id(), every_key()))
            .await
            .unwrap();
        let reached = page
            .checkpoints
            .first()
            .map_or(0, |checkpoint| checkpoint.position.get());
        assert!(
            [worker.at.get(), to].contains(&reached),
            "it is at {reached}"
        );
        assert_eq!(
            page.rows
                .first()
                .map_or(0, |row| String::from_utf8_lossy(&row.value)
                    .parse()
                    .unwrap()),
            reached
        );
        match views.commit_view(step).await {
            Ok(()) => assert!(done.is_none(), "taken twice"),
            Err(error) => assert_fenced(&error, &worker),
        }
        worker.at = at(to);
        let picture = ViewPicture::of(views, &worker.generation).await;
        assert_eq!(picture.checkpoints[0].position, at(to));
        let steps = polls + 1;
        assert_eq!(
            (
                picture.rows.len(),
                picture.versions[0].len(),
                picture.dead_letters.len()
            ),
            (steps + 1, steps, steps * 2)
        );
        if done.is_some() {
            return;
        }
    }
    panic!("the step never ends");
}

/// A worker that is cancelled while it asks for its lease, begins, switches or drops leaves nothing
/// half done.
pub async fn and_all_else_disturb_nobody_when_their_future_is_dropped(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::default());
    let store = open_at(fixture, &clock).await;
    let views: &dyn ViewStore = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &[])).await;
    let other = views.begin_generation(spec("a", &[])).await.unwrap();
    views.switch_to(worker.id()).await.unwrap();
    for polls in 0..1_000 {
        let mut done = true;
        // Many more than a pool of connections has, so that one that is leaked is missed.
        for _ in 0..10 {
            let id = worker.id();
            done &= drop_after(polls, views.read_rows(ReadRows::of(id, every_key())))
                .await
                .is_some();
            done &= drop_after(polls, views.checkpoints(id)).await.is_some();
            done &= drop_after(polls, views.dead_letters(id, None, 9))
                .await
                .is_some();
            done &= drop_after(polls, views.read_past(id, &["a".into()], at(1)))
                .await
                .is_some();
            done &= drop_after(polls, views.renew_lease(&worker.lease, TTL))
                .await
                .is_some();
            done &= drop_after(polls, views.leases("a")).await.is_some();
        }
        let to = if polls % 2 == 0 {
            other.id
        } else {
            worker.id()
        };
        done &= drop_after(polls, views.switch_to(to)).await.is_some();
        let spare = drop_after(polls, views.begin_generation(spec("b", &[]))).await;
        done &= spare.is_some();
        if let Some(Ok(spare)) = spare {
            done &= drop_after(polls, views.drop_generation(spare.id))
                .await
                .is_some();
        }
        let live = views
            .live_generation("a", 1)
            .await
            .unwrap()
            .expect("one of the two is live");
        assert!([worker.id(), other.id].contains(&live.id));
        clock.advance(TimeDelta::seconds(10));
        done &= drop_after(
            polls,
            views.acquire_lease(&worker.lease.name, "worker-b", TTL),
        )
        .await
        .is_some();
        clock.advance(TimeDelta::seconds(10));
        worker.lease = granted(
            views
                .acquire_lease(&worker.lease.name, "worker-a", TTL)
                .await
                .unwrap(),
        );
        worker
            .change(views, [set("row", polls.to_string(), &[])])
            .await;
        if done {
            return;
        }
    }
    panic!("it never ends");
}
