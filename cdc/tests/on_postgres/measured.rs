//! What operators see of an ingest: its status, and what a recorder of metrics is told.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use annals::cdc::Ingests as _;
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};

use super::procedures::{EX, INSERTED, shop};
use crate::world::{following, ids_of, source, start, status, until};

/// The last value of everything.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Kept {
    fn value(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }

    fn count(&self, name: &str) -> u64 {
        let name = format!("annals_ingest_{name}{{ingest=shop}}");
        let kept = self.0.lock().unwrap();
        let value = kept.get(&name);
        value
            .unwrap_or_else(|| panic!("{name} in {kept:#?}"))
            .load(Ordering::SeqCst)
    }

    fn level(&self, name: &str) -> f64 {
        f64::from_bits(self.count(name))
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.value(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.value(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn a_recorder_is_told_what_the_documentation_promises() {
    let kept = Kept::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    with_local_recorder(&kept, || runtime.block_on(measured(&kept)));
}

async fn measured(kept: &Kept) {
    let busy = format!("{EX} create table busy(v text)");
    let (server, url, folder) = shop(&["max_slot_wal_keep_size=64MB"], &busy);
    server.psql("shop", "insert into ex(v) values ('a'), ('b')");
    let program = start(folder.path(), source(&url, &["ex"])).await;
    ids_of(&program, "public.ex.read", 2).await;
    following(&program).await;
    for _ in 0..3 {
        server.psql("shop", "insert into ex(v) values ('c')");
    }
    ids_of(&program, INSERTED, 3).await;
    // Nothing more happens, and what the slot keeps is seen all the same.
    until("a heartbeat came back", || async {
        let status = status(&program);
        let is_known = status.source.waits_since.is_none() && status.lag_seconds.is_some();
        (status.source.lag_bytes == Some(0) && is_known).then_some(())
    })
    .await;
    let status = status(&program);
    assert_eq!(kept.count("transactions_total"), status.transactions);
    assert_eq!(status.transactions, 3);
    // The rows of the copy and of the stream, and the form of the table.
    assert_eq!(kept.count("events_total"), 6);
    assert_eq!(kept.count("skipped_total"), 0);
    assert_eq!(kept.level("snapshot_rows").to_bits(), 0);
    let (slot, keeps) = status.source.slot.clone().unwrap();
    assert_eq!(slot, "annals_shop");
    assert!(keeps > 0 && kept.level("slot_bytes") > 0.0, "{status}");
    let safe = status.source.safe_wal_bytes.unwrap();
    assert!(safe > 0 && kept.level("safe_wal_bytes") > 0.0, "{status}");
    let lag = kept.level("lag_seconds");
    assert!((0.0..60.0).contains(&lag), "{lag}");
    assert!(kept.level("lag_bytes") < 10_000.0, "{status}");
    let shown = status.to_string();
    for part in [
        "ingest shop: following · at 0/",
        ", lags 0 bytes and ",
        " s · slot annals_shop keeps ",
    ] {
        assert!(shown.contains(part), "{shown}");
    }

    // What waits while the server is down gets older, and what is skipped is counted.
    server.crash();
    until("it says that it waits", || async {
        let status = crate::world::status(&program);
        let waits = status.to_string().contains("retrying: ");
        (waits && status.lag_seconds > Some(0.2)).then_some(())
    })
    .await;
    server.start_again();
    following(&program).await;
    server.psql("shop", "insert into ex(v) values ('d')");
    ids_of(&program, INSERTED, 4).await;
    program.stop().await;
    drop(program);
    // The slot is about to be lost.
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    let shop = program.ingest("shop").unwrap();
    let mut open = crate::server::Psql::open(&url);
    open.run("begin; insert into ex(v) values ('open')");
    // Not so much that the slot is lost before the ingest looks at it. This thread is the ingest's
    // too: it is left alone afterwards.
    let safe = "select safe_wal_size from pg_replication_slots where slot_name = 'annals_shop'";
    while server.psql("shop", safe).parse::<i64>().unwrap() > 10_000_000 {
        let rows = "insert into busy select repeat('x', 1000) from generate_series(1, 2000)";
        server.psql("shop", rows);
    }
    until("a warning", || async {
        let warnings = shop.status().source.warnings;
        warnings
            .iter()
            .any(|of| of.contains("gives slot `annals_shop` up after"))
            .then_some(())
    })
    .await;
    open.run("commit");
    open.end();
    ids_of(&program, INSERTED, 5).await;
    program.stop().await;
}
