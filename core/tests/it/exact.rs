//! What is written comes back: events, states and snapshots, to the last bit.

use annals_core::{Aggregate, Annals, FoldId, Snapshots, StreamId, Version};
use annals_macros::Event;
use serde::{Deserialize, Serialize};

/// Without the exact reading of floats this one comes back one bit off.
const MEASURED: f64 = 13.715571970987849;

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "probe", crate = "annals_core")]
enum ProbeEvent {
    Measured { value: f64 },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Probe {
    last: f64,
    sum: f64,
}

impl Aggregate for Probe {
    type Event = ProbeEvent;

    fn apply(&mut self, event: &ProbeEvent) {
        let ProbeEvent::Measured { value } = event;
        self.last = *value;
        self.sum += value;
    }

    fn snapshots() -> Option<Snapshots<Probe>> {
        Some(Snapshots::every(1))
    }
}

#[tokio::test]
async fn floats_in_events_and_snapshots_come_back_exactly() {
    let db = Annals::in_memory();
    let probe = db.aggregate::<Probe>("a");
    for _ in 0..3 {
        let measured = ProbeEvent::Measured { value: MEASURED };
        probe
            .run(|_| Ok::<_, String>(measured.clone()))
            .await
            .unwrap();
    }
    let fresh = Annals::on(std::sync::Arc::clone(db.store()));
    let loaded = fresh.aggregate::<Probe>("a").load().await.unwrap();
    assert_eq!(loaded.last.to_bits(), MEASURED.to_bits());
    assert_eq!(
        loaded.sum.to_bits(),
        (MEASURED + MEASURED + MEASURED).to_bits()
    );
}

/// A state that serde does not read back: a field is left out that has no default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Flagged {
    events: u64,
    #[serde(skip_serializing_if = "is_set")]
    set: bool,
}

fn is_set(set: &bool) -> bool {
    *set
}

impl Aggregate for Flagged {
    type Event = ProbeEvent;

    fn apply(&mut self, _: &ProbeEvent) {
        self.events += 1;
        self.set = true;
    }

    fn snapshots() -> Option<Snapshots<Flagged>> {
        Some(Snapshots::every(1))
    }
}

#[tokio::test]
async fn a_state_that_is_not_read_back_gets_no_snapshot() {
    let db = Annals::in_memory();
    let flagged = db.aggregate::<Flagged>("a");
    for _ in 0..3 {
        let measured = |_: &Flagged| Ok::<_, String>(ProbeEvent::Measured { value: MEASURED });
        flagged.run(measured).await.unwrap();
    }
    let fold = FoldId::new(std::any::type_name::<Flagged>(), 1);
    let stream = StreamId::new("probe-a").unwrap();
    let snapshots = db.store().snapshots().unwrap();
    let kept = snapshots
        .newest_snapshot(&stream, &fold, Version::MAX)
        .await;
    assert!(kept.unwrap().is_none());
    let fresh = Annals::on(std::sync::Arc::clone(db.store()));
    let loaded = fresh.aggregate::<Flagged>("a").load().await.unwrap();
    assert_eq!((loaded.events, loaded.set), (3, true));
}
