//! Connections that break around a commit: nothing acknowledged is lost, nothing is there twice,
//! and asking again resolves what was unknown.

// What must not fail is unwrapped, and the figures are shown.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod relay;
mod server;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::conformance::numbered::{Numbered, check, whole_log};
use annals_core::conformance::rounds;
use annals_core::{
    Acquired, AppendError, ChangeStream, Checkpoint, EventStore, Failure, GenerationSpec,
    GenerationStore, Leases, Log, Partition, Position, ReadRows, RowChange, RowStore, RowsBy,
    StreamChange, ViewCommit,
};
use annals_postgres::PostgresStore;
use relay::cuts::Cuts;
use relay::{Relay, Treatment};
use server::Schema;

/// Of so many requests that append, one is cut.
const CUT_EVERY: u64 = 5;

/// What became of the appends of one task.
#[derive(Debug, Default)]
struct Tried {
    acknowledged: HashSet<Numbered>,
    /// First answers that were no acknowledgement.
    unknown: u64,
    refused: u64,
    /// Of the acknowledgements: those that came for a repetition of what had been done.
    repeated: u64,
}

/// Makes one append after another and asks again, with the same ids, until each is acknowledged.
/// What was answered with an error of the store is not there, as a store finds that is not cut.
async fn appends(store: PostgresStore, direct: PostgresStore, task: u64, count: u64) -> Tried {
    let mut tried = Tried::default();
    for n in 0..count {
        let numbered = Numbered { run: 1, task, n };
        let mut is_unknown = false;
        loop {
            match store.append(numbered.append()).await {
                Ok(appended) => {
                    assert_eq!(appended.events().len() as u64, numbered.events());
                    tried.repeated += u64::from(appended.was_repeated());
                    tried.acknowledged.insert(numbered);
                    break;
                }
                Err(AppendError::Unknown(_)) => {
                    tried.unknown += 1;
                    is_unknown = true;
                }
                Err(AppendError::Store(error)) if error.failure() == Failure::Unavailable => {
                    tried.refused += 1;
                    let found = direct.find(Partition(0), &[numbered.id(0)]).await.unwrap();
                    assert!(is_unknown || found == [None], "{numbered:?}: {error:?}");
                }
                Err(error) => panic!("{numbered:?}: {error:?}"),
            }
        }
    }
    tried
}

/// `stores` of `tasks` each make `count` appends in all, through a relay that cuts.
async fn cut(stores: u64, tasks: u64, count: u64) -> Arc<Cuts> {
    let schema = Schema::new();
    let direct = schema.store().await;
    let relay = Relay::around(&[
        "append",
        "append_one",
        "append_one_then_flush",
        "append_then_flush",
    ])
    .await;
    let began = Instant::now();

    let mut running = tokio::task::JoinSet::new();
    let cuts = Arc::new(Cuts::one_in(CUT_EVERY));
    let mut opened = Vec::new();
    for _ in 0..stores {
        opened.push(
            PostgresStore::connect_with(relay.options(&schema.name))
                .await
                .unwrap(),
        );
    }
    let cutting = Arc::clone(&cuts);
    relay.choose(move || cutting.next());
    for (store, first) in opened.into_iter().zip((0..).step_by(tasks as usize)) {
        for task in first..first + tasks {
            let direct = direct.clone();
            running.spawn(appends(store.clone(), direct, task, count / stores / tasks));
        }
    }
    let mut all = Tried::default();
    while let Some(tried) = running.join_next().await {
        let tried = tried.unwrap();
        all.acknowledged.extend(tried.acknowledged);
        all.unknown += tried.unknown;
        all.refused += tried.refused;
        all.repeated += tried.repeated;
    }

    // One alone flushes in the section, and of several each soon notices the others.
    relay.assert_called(match stores {
        1 => &["append"],
        _ => &["append_one_then_flush", "append_then_flush"],
    });
    let found = check(&whole_log(&direct).await, &all.acknowledged);
    assert_eq!(
        found, all.acknowledged,
        "something is there that was never acknowledged"
    );
    assert_eq!(found.len() as u64, count, "something was never resolved");
    let [before, meanwhile, after] = cuts.all();
    println!(
        "{count} appends by {stores} stores of {tasks} tasks in {:.1} s: {} requests cut (before \
         the server had it {before}, while it worked \
         {meanwhile}, with its answer on the way {after}); callers heard {} times that the outcome \
         is unknown and {} times that the store is \
         unavailable, {} were found done when asked again; 0 lost, 0 twice, 0 unresolved",
        began.elapsed().as_secs_f64(),
        before + meanwhile + after,
        all.unknown,
        all.refused,
        all.repeated,
    );
    cuts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_append_is_resolved_when_every_fifth_connection_is_lost() {
    // Each store has one append at a time, so a request is an append.
    let count = rounds(2_000, 10_000);
    let cuts = cut(8, 1, count).await;
    let [before, meanwhile, after] = cuts.all();
    let least = count / CUT_EVERY;
    assert!(
        before + meanwhile + after >= least
            && before >= least / 2
            && meanwhile >= least / 4
            && after >= least / 4,
        "{cuts:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_of_one_batch_are_resolved_one_by_one() {
    let cuts = cut(1, 16, rounds(800, 2_000)).await;
    assert!(cuts.all().into_iter().all(|count| count > 0), "{cuts:?}");
}

/// The answer of the first call of `function` is lost, and every other chosen request from then on
/// is cut before the server has it, but for as many as `pass`.
fn lose_the_answer(relay: &Relay, function: &'static str, mut pass: u32) {
    let mut is_lost = false;
    relay.choose_by(move |name| match is_lost {
        false if name == function => {
            is_lost = true;
            Treatment::AnswerLost
        }
        true if pass == 0 => Treatment::NeverArrives,
        true => {
            pass -= 1;
            Treatment::Passes
        }
        false => Treatment::Passes,
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_append_that_cannot_be_rechecked_is_unknown() {
    let schema = Schema::new();
    let direct = schema.store().await;
    // The recheck sees a stream, and finds ids.
    let relay = Relay::around(&["append_one", "string_agg", "unnest"]).await;
    let store = PostgresStore::connect_with(relay.options(&schema.name))
        .await
        .unwrap();
    let [first, second] = [0, 1].map(|n| Numbered { run: 1, task: 0, n });
    // Its stream and its kind are known from then on.
    store.append(first.append()).await.unwrap();
    lose_the_answer(&relay, "append_one", 0);
    let error = store.append(second.append()).await.unwrap_err();
    assert!(matches!(error, AppendError::Unknown(_)), "{error:?}");
    assert_eq!(whole_log(&direct).await.len(), 2);
    relay.choose(|| Treatment::Passes);
    assert!(store.append(second.append()).await.unwrap().was_repeated());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_made_change_that_cannot_be_looked_up_is_unknown() {
    let schema = Schema::new();
    let direct = schema.store().await;
    let relay = Relay::around(&["change_stream", "log_identity"]).await;
    let hour = Duration::from_secs(3_600);
    let options = relay.options(&schema.name).poll_interval(hour);
    let options = options.connect_timeout(Duration::from_millis(500));
    let store = PostgresStore::connect_with(options).await.unwrap();
    let first = Numbered {
        run: 1,
        task: 0,
        n: 0,
    };
    let appended = store.append(first.append()).await.unwrap();
    let stream = &appended.last().stream;
    let change = ChangeStream::new(stream, StreamChange::Delete);
    // It connects again to find out whether the server still works at it.
    lose_the_answer(&relay, "change_stream", 1);
    let error = store.change_stream(change.clone()).await.unwrap_err();
    assert!(matches!(error, AppendError::Unknown(_)), "{error:?}");
    let made = direct.stream_state(stream).await.unwrap();
    assert_eq!(made.deletions.len(), 1);
    relay.choose(|| Treatment::Passes);
    assert_eq!(store.change_stream(change).await.unwrap(), made);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_and_leases_are_resolved_when_connections_are_lost() {
    let schema = Schema::new();
    drop(schema.store().await);
    let relay = Relay::around(&["commit_step", "acquire_lease"]).await;
    let store = PostgresStore::connect_with(relay.options(&schema.name))
        .await
        .unwrap();
    let generation = store
        .begin_generation(GenerationSpec::new("cut", 1, store.id()))
        .await
        .unwrap();
    let cuts = Arc::new(Cuts::one_in(CUT_EVERY));
    let cutting = Arc::clone(&cuts);
    relay.choose(move || cutting.next());
    let ttl = Duration::from_secs(3_600);
    let change = |value: String| RowChange {
        key: "row".into(),
        value: Some(value.into()),
        indexed: Vec::new(),
    };
    let mut told_twice = 0;
    for position in 1..=500_u64 {
        let lease = loop {
            match store
                .acquire_lease(&generation.lease_name(0), "worker", ttl)
                .await
                .unwrap()
            {
                Acquired::Granted(lease) => break lease,
                // It was granted, and the answer was lost.
                Acquired::Held(own) => {
                    assert_eq!(own.lease.owner, "worker");
                    told_twice += 1;
                    store.release_lease(&own.lease).await.unwrap();
                }
            }
        };
        let to = Checkpoint {
            position: Position::new(position),
            ..Checkpoint::start(0, Partition(0))
        };
        let mut step = ViewCommit::new(
            generation.id,
            lease.clone(),
            Position::new(position - 1),
            to,
        );
        step.rows.push(change(position.to_string()));
        store.commit_view(step).await.unwrap();
        store.release_lease(&lease).await.unwrap();
    }
    let page = store
        .read_rows(ReadRows::of(
            generation.id,
            RowsBy::Keys(vec!["row".into()]),
        ))
        .await
        .unwrap();
    assert_eq!(
        (page.rows[0].value.as_ref(), page.checkpoints[0].position),
        (&b"500"[..], Position::new(500))
    );
    relay.assert_called(&["commit_step", "acquire_lease"]);
    let [before, meanwhile, after] = cuts.all();
    assert!(
        before > 0 && meanwhile > 0 && after > 0 && told_twice > 0,
        "{cuts:?}, {told_twice} leases"
    );
    println!(
        "500 steps: cut before the server had them {before}, meanwhile {meanwhile}, with the \
         answer on its way {after}"
    );
}

/// A server that is down for all that a store may ask of it: writers, readers, and steps of views.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_is_out_of_reach() {
    let schema = Schema::new();
    let relay = Relay::around(&[]).await;
    let options = relay.options(&schema.name).readers(2);
    let options = options.connect_timeout(Duration::from_millis(500));
    let store = PostgresStore::connect_with(options).await.unwrap();
    let spec = GenerationSpec::new("cut", 1, store.id());
    let generation = store.begin_generation(spec.clone()).await.unwrap();
    let ttl = Duration::from_secs(3_600);
    let name = generation.lease_name(0);
    let lease = store.acquire_lease(&name, "worker", ttl);
    let Acquired::Granted(lease) = lease.await.unwrap() else {
        panic!("another worker holds it");
    };
    let to = Checkpoint {
        position: Position::new(1),
        ..Checkpoint::start(0, Partition(0))
    };
    let step = ViewCommit::new(generation.id, lease, Position::START, to);
    drop(relay);

    let numbered = Numbered {
        run: 1,
        task: 0,
        n: 0,
    };
    let stepped = store.commit_view(step).await.unwrap_err();
    for (what, error) in [
        ("a step", stepped.to_string() + &cause(&stepped)),
        ("a new generation", told(store.begin_generation(spec).await)),
        ("a read", told(store.head(Partition(0)).await)),
        ("an append", told(store.append(numbered.append()).await)),
    ] {
        assert!(error.contains("cannot be reached"), "{what}: {error}");
        assert!(error.contains("refused"), "{what}: {error}");
        assert!(!error.contains("in use"), "{what}: {error}");
    }
}

/// An error with its causes.
fn told<T: std::fmt::Debug, E: std::error::Error>(done: Result<T, E>) -> String {
    let error = done.unwrap_err();
    error.to_string() + &cause(&error)
}

fn cause(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.map(|error| format!(": {error}")).collect()
}
