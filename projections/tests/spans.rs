//! What a subscriber of `tracing` is told: the spans that the documentation promises, with their
//! fields. In a process of its own: what one subscriber wants is remembered for all threads.

#![allow(missing_docs, dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_core::Annals;
use annals_projections::{ReactError, Reactor, ReactorSetup, ReadModels, Request, View, With};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use bank::{AccountEvent, Balance, deposited, happens};

#[path = "../../tests/projections/bank.rs"]
mod bank;
#[path = "../../tests/projections/test_store.rs"]
mod test_store;

type Spans = BTreeMap<String, BTreeSet<String>>;

/// Keeps the names of spans with those of their fields.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Spans>>);

impl Subscriber for Kept {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let of = span.metadata();
        let fields = of.fields().iter().map(|field| field.name().to_owned());
        self.0
            .lock()
            .unwrap()
            .entry(of.name().to_owned())
            .or_default()
            .extend(fields);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Quiet;

impl Reactor for Quiet {
    const NAME: &'static str = "quiet";
    type Event = AccountEvent;

    async fn react(
        &self,
        _: &annals_core::Recorded<AccountEvent>,
        _: &Request,
    ) -> Result<(), ReactError> {
        Ok(())
    }
}

#[test]
fn batches_commits_calls_and_rebuilds_are_spans() {
    let kept = Kept::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tracing::subscriber::with_default(kept.clone(), || {
        runtime.block_on(async {
            let db = Annals::in_memory()
                .with(Balance::projection())
                .with(ReactorSetup::of(Quiet))
                .start()
                .await
                .unwrap();
            let done = happens(&db, "alice", deposited(1)).await;
            let timeout = Duration::from_secs(60);
            db.view::<Balance>().wait_for(&done, timeout).await.unwrap();
            db.reactor::<Quiet>()
                .wait_for(&done, timeout)
                .await
                .unwrap();
            db.rebuild::<Balance>()
                .begin()
                .await
                .unwrap()
                .finished(|_| ())
                .await
                .unwrap();
            db.stop().await;
        });
    });
    let spans = kept.0.lock().unwrap();
    let place = ["projection", "slot", "partition", "from", "to"];
    for (name, fields) in [
        ("batch", [&place[..], &["generation", "events"]].concat()),
        ("commit", place.to_vec()),
        (
            "call",
            vec!["reactor", "key", "partition", "position", "attempt"],
        ),
        ("rebuild", vec!["projection", "generation", "from", "to"]),
    ] {
        let of = spans
            .get(name)
            .unwrap_or_else(|| panic!("no span is called {name}: {spans:?}"));
        assert!(
            fields.iter().all(|field| of.contains(*field)),
            "{name} has {of:?}"
        );
    }
}
