//! What a recorder of metrics is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_core::Annals;
use annals_projections::{ReactError, Reactor, ReactorSetup, ReadModels, Request, View, With};
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit, with_local_recorder,
};

use crate::bank::{AccountEvent, Balance, deposited, happens, noted};

/// Keeps the last value of everything, and how often a histogram was told one.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    described: BTreeMap<String, Option<Unit>>,
    values: BTreeMap<String, Arc<AtomicU64>>,
}

struct Count(Arc<AtomicU64>);

impl HistogramFn for Count {
    fn record(&self, _: f64) {
        self.0.increment(1);
    }
}

impl Kept {
    fn describe(&self, name: &KeyName, unit: Option<Unit>) {
        self.0
            .lock()
            .unwrap()
            .described
            .insert(name.as_str().into(), unit);
    }

    fn value(&self, key: &Key) -> Arc<AtomicU64> {
        let labels = key.labels().filter(|label| label.key() != "generation");
        let labels: Vec<_> = labels
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.0.lock().unwrap().values.entry(name).or_default())
    }

    fn count(&self, name: &str) -> u64 {
        let inner = self.0.lock().unwrap();
        inner
            .values
            .get(name)
            .unwrap_or_else(|| panic!("{name} in {inner:#?}"))
            .load(Ordering::SeqCst)
    }

    fn level(&self, name: &str) -> f64 {
        f64::from_bits(self.count(name))
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, unit);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, unit);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, unit);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.value(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.value(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Count(self.value(key))))
    }
}

struct Refuses;

impl Reactor for Refuses {
    const NAME: &'static str = "refuses";
    type Event = AccountEvent;

    async fn react(
        &self,
        event: &annals_core::Recorded<AccountEvent>,
        _: &Request,
    ) -> Result<(), ReactError> {
        match &**event {
            AccountEvent::Deposited { .. } => Ok(()),
            _ => Err(ReactError::permanent("not this one")),
        }
    }
}

#[test]
fn a_recorder_is_told_what_the_documentation_promises() {
    let kept = Kept::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    with_local_recorder(&kept, || {
        runtime.block_on(async {
            let db = Annals::in_memory()
                .with(Balance::projection())
                .with(ReactorSetup::of(Refuses));
            let db = db.start().await.unwrap();
            for cents in 1..=3 {
                happens(&db, "alice", deposited(cents)).await;
            }
            let done = happens(&db, "bob", noted("poison")).await;
            let timeout = Duration::from_secs(60);
            db.view::<Balance>().wait_for(&done, timeout).await.unwrap();
            db.reactor::<Refuses>()
                .wait_for(&done, timeout)
                .await
                .unwrap();
            // Its lag is reported now and then.
            let dead_letters =
                "annals_projection_dead_letter_keys{kind=view,projection=balances,slot=0}";
            while kept.level(dead_letters) != 1.0 {
                tokio::task::yield_now().await;
            }
            db.stop().await;
        });
    });
    let of =
        |name: &str| format!("annals_projection_{name}{{kind=view,projection=balances,slot=0}}");
    assert_eq!(kept.count(&of("events_total")), 4);
    assert_eq!(
        kept.count(&of("commits_total")),
        kept.count(&of("commit_seconds"))
    );
    assert!((1..=3).contains(&kept.count(&of("rows_written_total"))));
    assert_eq!(
        (
            kept.level(&of("lag_events")),
            kept.level(&of("lag_seconds"))
        ),
        (0.0, 0.0)
    );
    assert_eq!(
        (
            kept.count(&of("retries_total")),
            kept.count(&of("leases_lost_total"))
        ),
        (0, 0)
    );
    let calls = |outcome| {
        kept.count(&format!(
            "annals_reactor_calls_total{{kind=reactor,reactor=refuses,outcome={outcome}}}"
        ))
    };
    assert_eq!((calls("done"), calls("failed")), (3, 1));
    assert_eq!(
        kept.count("annals_reactor_call_seconds{kind=reactor,reactor=refuses}"),
        4
    );

    // Everything is described and is in the documentation.
    let documented = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/docs/operating/README.md"
    ))
    .unwrap();
    let inner = kept.0.lock().unwrap();
    for name in inner
        .values
        .keys()
        .map(|name| name.split_once('{').unwrap().0)
    {
        assert!(
            inner.described.get(name).is_some_and(Option::is_some),
            "{name} has no unit"
        );
        assert!(
            documented.contains(&format!("| `{name}` |")),
            "{name} is not documented"
        );
    }
}

#[test]
fn lost_leases_and_rebuild_progress_are_metrics() {
    let kept = Kept::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let of =
        |name: &str| format!("annals_projection_{name}{{kind=view,projection=balances,slot=0}}");
    with_local_recorder(&kept, || {
        runtime.block_on(async {
            let db = Annals::in_memory()
                .with(Balance::projection())
                .start()
                .await
                .unwrap();
            let timeout = Duration::from_secs(60);
            let done = happens(&db, "alice", deposited(1)).await;
            db.view::<Balance>().wait_for(&done, timeout).await.unwrap();
            assert_eq!(kept.count(&of("leases_lost_total")), 0);
            // Another process takes the slot and gives it back: who had it is refused, and begins
            // again.
            let views = db.store().views().unwrap();
            let generation = views.generations("balances").await.unwrap().remove(0);
            for state in views.leases(&generation.lease_name(0)).await.unwrap() {
                views.release_lease(&state.lease).await.unwrap();
            }
            let done = happens(&db, "alice", deposited(2)).await;
            db.view::<Balance>().wait_for(&done, timeout).await.unwrap();
            assert_eq!(kept.count(&of("leases_lost_total")), 1);

            // The first generation was built, too.
            kept.0.lock().unwrap().values[&of("rebuild_progress_ratio")].store(0, Ordering::SeqCst);
            db.rebuild::<Balance>()
                .begin()
                .await
                .unwrap()
                .finished(|_| ())
                .await
                .unwrap();
            while kept.level(&of("rebuild_progress_ratio")) != 1.0 {
                tokio::task::yield_now().await;
            }
            db.stop().await;
        });
    });
}
