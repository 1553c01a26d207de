//! A refused decision over a query counts only while nothing that matches was appended meanwhile.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::sync::Arc;

use annals_core::{Annals, Append, Emit, EventStore, Fold, NewEvent, Query, Recorded, StreamId};
use annals_macros::Event;
use annals_sqlite::SqliteStore;
use serde::{Deserialize, Serialize};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "seat", crate = "annals_core")]
enum SeatEvent {
    Offered {},
    Taken {},
}

#[derive(Debug, Default)]
struct Offers(usize);

impl Fold for Offers {
    type Event = SeatEvent;

    fn apply(&mut self, _: &Recorded<SeatEvent>) {
        self.0 += 1;
    }
}

/// Far more events of either tag than a page examines, then one with both.
async fn overtake(store: &SqliteStore) {
    let stream = StreamId::new("seat-1").unwrap();
    let event = || NewEvent::json("seat.offered", b"{}".as_slice());
    for _ in 0..20 {
        let append = (0..1_000).fold(Append::default(), |append, n| {
            let tag = ["hall:a", "row:1"][n % 2];
            append.event(stream.clone(), event().tag(tag.parse().unwrap()))
        });
        store.append(append).await.unwrap();
    }
    let both = event()
        .tag("hall:a".parse().unwrap())
        .tag("row:1".parse().unwrap());
    store.append(Append::new(stream, [both])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_decided_again_after_many_near_matches() {
    let store = SqliteStore::open("sqlite::memory:").await.unwrap();
    // So that both tags are known.
    let stream = StreamId::new("other-1").unwrap();
    for tag in ["hall:a", "row:1"] {
        let event = NewEvent::json("other", b"{}".as_slice()).tag(tag.parse().unwrap());
        let append = Append::default().event(stream.clone(), event);
        store.append(append).await.unwrap();
    }
    let db = Annals::on(Arc::new(store.clone()));
    let both = Query::tagged(["hall:a".parse().unwrap(), "row:1".parse().unwrap()]);
    let mut decisions = 0;
    let decided = db.decide(Offers::over(both), |offers| {
        decisions += 1;
        if decisions == 1 {
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(overtake(&store));
            });
        }
        match offers.0 {
            0 => Err("nothing is offered"),
            _ => Ok(Emit::to("seat-1", SeatEvent::Taken {})),
        }
    });
    decided.await.unwrap();
    assert_eq!(decisions, 2);
}
