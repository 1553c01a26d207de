//! Steps whose answer is lost, or that no caller waits for any more.

use std::sync::Arc;

use async_trait::async_trait;

use super::super::faulty::{Call, FailsOnce, FaultyStore, StoreFault};
use super::super::view_words::*;
use super::super::words::*;
use super::super::{Fixture, drop_after};
use super::full;
use crate::chrono::TimeDelta;
use crate::clock::ManualClock;
use crate::error::{Failure, StoreError};
use crate::store::Store;
use crate::{CommitError, ReadRows, ViewStore};

pub async fn whose_answer_was_lost_are_resolved_by_the_checkpoint(fixture: &dyn Fixture) {
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
pub async fn and_all_else_disturb_no_other_when_dropped(fixture: &dyn Fixture) {
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
