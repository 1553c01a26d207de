//! Generations: begun, filled, switched to, kept, dropped.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Fixture;
use super::view_words::*;
use super::words::*;
use crate::clock::{Clock, ManualClock};
use crate::error::Failure;
use crate::event::EventId;
use crate::position::{LogId, Partition, Position};
use crate::{
    CommitError, Generation, GenerationId, GenerationSpec, History, Phase, ReadRows, SkipDecision,
    VIEW_KEY_BYTES_MAX, VIEW_SLOTS_MAX, ViewStore,
};

async fn begin(views: &dyn ViewStore, view: &str, version: u32) -> Generation {
    views
        .begin_generation(GenerationSpec::new(view, version, LogId::random()))
        .await
        .unwrap()
}

pub async fn are_polled_with_their_checkpoints_and_leases(fixture: &dyn Fixture) {
    let store = fixture.open(Arc::new(ManualClock::default())).await;
    let views = super::view_words::views(&*store);
    let mut names = Vec::new();
    let mut workers = Vec::new();
    // Names that begin alike, and that mean something else in a pattern.
    for view in ["a", "a/1", "a_", "ä%", "other"] {
        let mut slots = spec(view, &[]);
        slots.slots = 2;
        let mut worker = Worker::begin(views, slots).await;
        let step = worker.step(3);
        worker.take(views, step).await;
        let second = Worker::on(views, worker.generation.clone(), 1).await;
        views.release_lease(&second.lease).await.unwrap();
        names.push(view.to_owned());
        workers.push(worker);
    }
    let dropped = begin(views, "a", 2).await;
    views.drop_generation(dropped.id).await.unwrap();
    names.pop();
    let states = views.states(&names).await.unwrap();
    assert_eq!(states.len(), names.len());
    for worker in &workers[..names.len()] {
        let id = worker.id();
        let state = states.iter().find(|of| of.generation.id == id).unwrap();
        let generations = views
            .generations(&worker.generation.spec.view)
            .await
            .unwrap();
        assert_eq!(*generations, *std::slice::from_ref(&state.generation));
        assert_eq!(state.checkpoints, views.checkpoints(id).await.unwrap());
        let leases: Vec<_> = state
            .leases
            .iter()
            .map(|of| (of.lease.name.clone(), of.expired))
            .collect();
        let name = |slot| worker.generation.lease_name(slot);
        assert_eq!(leases, [(name(0), false), (name(1), true)]);
        assert_eq!(state.leases[0].lease, worker.lease);
    }
    assert!(views.states(&[]).await.unwrap().is_empty());
    assert!(views.states(&["none".into()]).await.unwrap().is_empty());
}

async fn live(views: &dyn ViewStore, view: &str, version: u32) -> Option<GenerationId> {
    let live = views.live_generation(view, version).await.unwrap()?;
    assert_eq!(
        (live.spec.view.as_str(), live.spec.version, live.phase),
        (view, version, Phase::Live)
    );
    Some(live.id)
}

async fn phases(views: &dyn ViewStore, view: &str) -> Vec<(GenerationId, Phase)> {
    let all = views.generations(view).await.unwrap();
    all.into_iter()
        .map(|generation| (generation.id, generation.phase))
        .collect()
}

pub async fn begin_empty_and_come_back_as_they_were_begun(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::at(recorded(0)));
    let store = open_at(fixture, &clock).await;
    let mut wide = GenerationSpec::new("Größe 'x' \"y\"", u32::MAX, LogId::random());
    wide.handles = vec![
        "account.opened".into(),
        "account.ä'".into(),
        "account.closed".into(),
    ];
    wide.partitions = 12;
    wide.slots = VIEW_SLOTS_MAX;
    wide.indexes = vec!["by owner".into(), "ä".into(), "A".into()];
    let mut past = GenerationSpec::new("past", 1, LogId::random());
    past.history = History::Versions;
    let mut begun = Vec::new();
    for (spec, since) in [
        (wide, Position::MAX),
        (past, Position::START),
        (spec("touched", &["by owner"]), Position::START),
    ] {
        let generation = views(&*store).begin_generation(spec.clone()).await.unwrap();
        assert_eq!(
            (&generation.spec, generation.phase),
            (&spec, Phase::Building)
        );
        assert_eq!(
            (generation.begun_at, generation.history_since),
            (clock.now(), since)
        );
        assert_eq!(views(&*store).checkpoints(generation.id).await.unwrap(), []);
        assert!(
            read_rows(views(&*store), ReadRows::of(generation.id, every_key()))
                .await
                .is_empty()
        );
        begun.push(generation);
    }
    let store = reopen(fixture, store).await;
    for generation in begun {
        assert_eq!(
            views(&*store)
                .generations(&generation.spec.view)
                .await
                .unwrap(),
            [generation]
        );
    }
    assert_eq!(views(&*store).generations("missing").await.unwrap(), []);
}

pub async fn that_no_store_can_keep_are_refused(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let mut refused = vec![
        spec("", &[]),
        spec("twice", &["a", "b", "a"]),
        spec(&"x".repeat(VIEW_KEY_BYTES_MAX + 1), &[]),
    ];
    for slots in [0, VIEW_SLOTS_MAX + 1] {
        refused.push(GenerationSpec {
            slots,
            ..spec("slots", &[])
        });
    }
    for (partitions, history) in [
        (0, History::None),
        (2, History::Versions),
        (2, History::Bitemporal),
    ] {
        refused.push(GenerationSpec {
            partitions,
            history,
            ..spec("partitions", &[])
        });
    }
    for spec in refused {
        let error = views(&*store)
            .begin_generation(spec.clone())
            .await
            .unwrap_err();
        assert_eq!(error.failure(), Failure::Invalid, "{spec:?}: {error}");
    }
    assert!(views(&*store).view_names().await.unwrap().is_empty());
    let longest = "x".repeat(VIEW_KEY_BYTES_MAX);
    begin(views(&*store), &longest, 1).await;
    assert_eq!(views(&*store).view_names().await.unwrap(), [longest]);
}

pub async fn have_ids_that_grow_and_never_return(fixture: &dyn Fixture) {
    let mut store = open(fixture).await;
    let mut newest = GenerationId(0);
    for round in 0..4 {
        for view in ["a", "b"] {
            let generation = begin(views(&*store), view, 1).await;
            assert!(
                generation.id > newest,
                "{} after {newest}, round {round}",
                generation.id
            );
            newest = generation.id;
        }
        for generation in views(&*store).generations("b").await.unwrap() {
            views(&*store).drop_generation(generation.id).await.unwrap();
        }
        if round % 2 == 1 {
            store = reopen(fixture, store).await;
        }
    }
    let answers = at_once((0..8).map(|_| {
        let store = Arc::clone(&store);
        async move { begin(views(&*store), "a", 1).await.id }
    }))
    .await;
    let mut different = answers.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 8, "{answers:?}");
    let all: Vec<GenerationId> = phases(views(&*store), "a")
        .await
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert!(
        all.len() == 12 && all.is_sorted() && different[0] > newest,
        "oldest first: {all:?}"
    );
}

pub async fn serve_the_readers_of_their_version_after_the_switch(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let one = begin(views, "a", 1).await.id;
    let two = begin(views, "a", 1).await.id;
    let next = begin(views, "a", 2).await.id;
    let other = begin(views, "a2", 1).await.id;
    assert_eq!(
        (
            live(views, "a", 1).await,
            live(views, "a", 2).await,
            live(views, "a2", 1).await
        ),
        (None, None, None)
    );
    views.switch_to(one).await.unwrap();
    views.switch_to(other).await.unwrap();
    assert_eq!(
        (live(views, "a", 1).await, live(views, "a", 2).await),
        (Some(one), None)
    );
    views.switch_to(two).await.unwrap();
    assert_eq!(
        phases(views, "a").await,
        [
            (one, Phase::Kept),
            (two, Phase::Live),
            (next, Phase::Building)
        ]
    );
    // Another version has readers of its own, and so has another view.
    views.switch_to(next).await.unwrap();
    assert_eq!(
        (live(views, "a", 1).await, live(views, "a", 2).await),
        (Some(two), Some(next))
    );
    assert_eq!(live(views, "a2", 1).await, Some(other));
    // Back to the one that was kept; once more changes nothing.
    for _ in 0..2 {
        views.switch_to(one).await.unwrap();
        assert_eq!(
            phases(views, "a").await,
            [(one, Phase::Live), (two, Phase::Kept), (next, Phase::Live)]
        );
    }
    let store = reopen(fixture, store).await;
    let views = super::view_words::views(&*store);
    assert_eq!(
        phases(views, "a").await,
        [(one, Phase::Live), (two, Phase::Kept), (next, Phase::Live)]
    );
}

/// A reader that asks all the time always finds exactly one.
pub async fn are_switched_in_one_moment(fixture: &dyn Fixture) {
    let one = open(fixture).await;
    let two = another(fixture, &one).await;
    let ids = [
        begin(views(&*one), "a", 1).await.id,
        begin(views(&*one), "a", 1).await.id,
    ];
    views(&*one).switch_to(ids[0]).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            let mut asked = 0;
            while !done.load(Ordering::SeqCst) || asked < 10 {
                let phases = phases(views(&*two), "a").await;
                let live = phases
                    .iter()
                    .filter(|(_, phase)| *phase == Phase::Live)
                    .count();
                assert_eq!(live, 1, "{phases:?}");
                asked += 1;
            }
        }
    });
    for round in 1..50 {
        views(&*one).switch_to(ids[round % 2]).await.unwrap();
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::SeqCst);
    reading.await.expect("the reader is content");
}

/// A generation with a row, a version, a dead letter, and all the rest.
async fn filled(views: &dyn ViewStore, view: &str) -> Worker {
    let mut worker = Worker::begin(views, spec(view, &["by"])).await;
    let mut step = worker.step(3);
    step.rows = vec![set("alice", "1", &["x"])];
    step.versions = vec![row_version("alice", 0, 3, Some("1"))];
    step.touched = vec![("alice".into(), at(3))];
    step.dead_letters = vec![dead_letters("bob", 2, Some("no"), 1)];
    worker.take(views, step).await;
    worker
}

pub async fn that_are_dropped_take_everything_along_and_say_so(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    // The names of leases on `a` and on `a/1` begin alike.
    let dropped = filled(views, "a").await;
    let mut neighbours = vec![
        filled(views, "a").await,
        filled(views, &format!("a/{}", dropped.id())).await,
    ];
    neighbours.push(filled(views, "b").await);
    let skip_decision = SkipDecision {
        view: "a".into(),
        partition: Partition(0),
        position: at(2),
        event: EventId::random(),
        key: None,
        reason: "a test".into(),
        decided_at: recorded(2),
    };
    views
        .save_skip_decision(skip_decision.clone())
        .await
        .unwrap();
    let mut pictures = Vec::new();
    for worker in &neighbours {
        pictures.push(ViewPicture::of(views, &worker.generation).await);
    }
    for _ in 0..2 {
        views.drop_generation(dropped.id()).await.unwrap();
    }
    let store = reopen(fixture, store).await;
    let views = super::view_words::views(&*store);
    let id = dropped.id();
    let keys = ["alice".to_owned()];
    let all = (Bound::Unbounded, Bound::Unbounded);
    let between = (Position::START, Position::MAX);
    assert_gone(views.checkpoints(id).await, id);
    assert_gone(views.read_rows(ReadRows::of(id, every_key())).await, id);
    assert_gone(views.read_past(id, &keys, at(3)).await, id);
    assert_gone(views.past_keys(id, all, None, 9).await, id);
    assert_gone(views.row_versions(id, "alice", between, 9).await, id);
    assert_gone(views.keys_changed_between(id, between, None, 9).await, id);
    assert_gone(
        views.touched(id, "alice", between.0, between.1, 9).await,
        id,
    );
    assert_gone(views.forget_history(id, at(1)).await, id);
    assert_gone(views.dead_letters(id, None, 9).await, id);
    assert_gone(views.switch_to(id).await, id);
    assert_gone(views.commit_view(dropped.step(4)).await, id);
    assert!(
        !views.renew_lease(&dropped.lease, TTL).await.unwrap(),
        "its leases are gone"
    );
    for (worker, picture) in neighbours.iter_mut().zip(pictures) {
        assert_eq!(ViewPicture::of(views, &worker.generation).await, picture);
        let step = worker.step(4);
        worker.take(views, step).await;
    }
    assert_eq!(views.skip_decisions("a").await.unwrap(), [skip_decision]);
    assert_eq!(
        phases(views, "a").await,
        [(neighbours[0].id(), Phase::Building)]
    );
}

pub async fn on_which_readers_depend_are_not_dropped(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let one = filled(views, "a").await;
    let two = filled(views, "a").await;
    let next = begin(views, "a", 2).await.id;
    let other = begin(views, "b", 1).await.id;
    views.switch_to(other).await.unwrap();
    views.switch_to(one.id()).await.unwrap();
    views.switch_to(two.id()).await.unwrap();
    let before = ViewPicture::of(views, &two.generation).await;
    let error = views.drop_generation(two.id()).await.unwrap_err();
    assert!(matches!(error, CommitError::Invalid(_)), "{error:?}");
    assert_eq!(ViewPicture::of(views, &two.generation).await, before);
    views.drop_generation(one.id()).await.unwrap();
    // Once another version serves, an old one may go, and not before.
    assert!(views.drop_generation(two.id()).await.is_err());
    views.switch_to(next).await.unwrap();
    views.drop_generation(two.id()).await.unwrap();
    assert_eq!(phases(views, "a").await, [(next, Phase::Live)]);
    assert!(views.drop_generation(next).await.is_err());
}

pub async fn are_found_by_the_name_of_their_view(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let names = [
        "Balances",
        "balance",
        "balances",
        "balances ",
        "balances%",
        "balances2",
        "bälances",
        "ä",
    ];
    let mut begun = Vec::new();
    for name in names.into_iter().rev() {
        begun.push(begin(views, name, 1).await);
    }
    begin(views, "balances", 1).await;
    assert_eq!(views.view_names().await.unwrap(), names);
    for generation in &begun {
        assert_eq!(
            views.generations(&generation.spec.view).await.unwrap()[0],
            *generation
        );
    }
    views.drop_generation(begun[0].id).await.unwrap();
    assert_eq!(views.view_names().await.unwrap(), names[..7]);
}
