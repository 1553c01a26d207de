//! Steps by a worker that the slot is no longer given to, and from where the slot is not.

use std::sync::Arc;

use super::super::Fixture;
use super::super::view_words::*;
use super::super::words::*;
use super::full;
use crate::chrono::TimeDelta;
use crate::clock::ManualClock;

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
pub async fn under_a_lease_that_ended_without_takeover_are_committed(fixture: &dyn Fixture) {
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

pub async fn from_another_checkpoint_than_the_slots_are_fenced(fixture: &dyn Fixture) {
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
    step.settled_letters = vec![("bob".into(), at(10))];
    step.versions = vec![row_version("bob", 4, 5, Some("settled"))];
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
            .expect("one of them wins");
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
