//! Invoice numbers: one after another, without a hole and without a counter table.

use annals_core::{Annals, Emit, Fold, Query, Recorded};
use annals_macros::Event;
use serde::{Deserialize, Serialize};

use crate::store::{given, processes, since};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "invoice", crate = "annals_core")]
struct Created {
    number: u64,
}

#[derive(Debug, Default)]
struct Last(u64);

impl Fold for Last {
    type Event = Created;

    fn apply(&mut self, event: &Recorded<Created>) {
        self.0 = event.number;
    }
}

async fn create(db: &Annals) {
    let next = |Last(last): &Last| {
        let number = last + 1;
        Ok::<_, std::convert::Infallible>(Emit::to(format!("invoice-{number}"), Created { number }))
    };
    db.decide(Last::over(Query::all()), next).await.unwrap();
}

#[tokio::test]
async fn the_first_is_1_and_the_next_is_one_more() {
    let [db] = processes();
    create(&db).await;
    assert_eq!(since::<Created>(&db, 0).await, [Created { number: 1 }]);
    given(&db, "account-1", [crate::bank::deposited(1)]).await;
    create(&db).await;
    assert_eq!(since::<Created>(&db, 2).await, [Created { number: 2 }]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racers_get_numbers_without_duplicates_and_holes() {
    let handles: [_; 2] = processes();
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let db = handles[task % 2].clone();
            tokio::spawn(async move {
                for _ in 0..3 {
                    create(&db).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let numbers: Vec<_> = since::<Created>(&handles[0], 0)
        .await
        .into_iter()
        .map(|created| created.number)
        .collect();
    assert_eq!(numbers, (1..=48).collect::<Vec<_>>());
}
