//! What is written comes back: events, states and snapshots, to the last bit.

use annals_core::{Aggregate, Annals, CommandError, FoldId, Snapshots, StreamId, Version};
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

/// A state that serde does not read back: a field without a default is not written.
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

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "rate", crate = "annals_core")]
enum RateEvent {
    Set {
        rate: Option<f64>,
        note: Option<Option<String>>,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Rate {
    mean: Option<f64>,
    events: u64,
}

impl Aggregate for Rate {
    type Event = RateEvent;

    fn apply(&mut self, _: &RateEvent) {
        self.events += 1;
        self.mean = (self.events > 1).then_some(f64::NAN);
    }

    fn snapshots() -> Option<Snapshots<Rate>> {
        Some(Snapshots::every(1))
    }
}

#[tokio::test]
async fn what_would_be_read_back_as_nothing_is_refused() {
    let db = Annals::in_memory();
    let rate = db.aggregate::<Rate>("a");
    let set = async |rate_set: Option<f64>, note: Option<Option<String>>| {
        let event = RateEvent::Set {
            rate: rate_set,
            note,
        };
        rate.run(move |_| Ok::<_, String>(event.clone())).await
    };
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let refused = set(Some(number), None).await.unwrap_err();
        assert!(matches!(refused, CommandError::Encode(_)), "{refused}");
        let said = format!("`rate` is {number}, which JSON has no form for");
        assert!(refused.to_string().contains(&said), "{refused}");
    }
    let refused = set(None, Some(None)).await.unwrap_err().to_string();
    assert!(refused.contains("`note` is `Some(None)`"), "{refused}");
    set(Some(f64::MAX), Some(Some("kept".into())))
        .await
        .unwrap();
    set(None, None).await.unwrap();

    // The state of two events would be read back from a snapshot as another one.
    let fold = FoldId::new(std::any::type_name::<Rate>(), 1);
    let stream = StreamId::new("rate-a").unwrap();
    let snapshots = db.store().snapshots().unwrap();
    let kept = snapshots
        .newest_snapshot(&stream, &fold, Version::MAX)
        .await
        .unwrap();
    assert_eq!(kept.map(|kept| kept.version), Some(Version::FIRST));
    let fresh = Annals::on(std::sync::Arc::clone(db.store()));
    let loaded = fresh.aggregate::<Rate>("a").load().await.unwrap();
    assert!(loaded.mean.is_some_and(f64::is_nan), "{:?}", *loaded);
}
