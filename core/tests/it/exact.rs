//! What is written comes back: events, states and snapshots, to the last bit.

use annals_core::{Aggregate, Annals, Snapshots};
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
