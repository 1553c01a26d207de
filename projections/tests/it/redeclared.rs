//! A view that programs declare in turn with another history, other indexes, keys and slots, and
//! under the same version: each reads what is right.

use annals_core::{Annals, History, Recorded};
use annals_projections::{Handlers, Poison, Project, ReadModels, Row, View, ViewSetup, With};
use serde::{Deserialize, Serialize};

use super::bank::{AccountEvent, deposited, happens, options};
use super::gateway::TIMEOUT;
use super::test_store::{TestStore, store};

/// A view of this name that counts the events of an account.
trait Counts: View {
    fn account() -> Self::Key;

    fn events(&self) -> u64;
}

macro_rules! declared {
    ($name:ident, $key:ty, $history:ident, $indexes:expr) => {
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        struct $name {
            events: u64,
        }

        impl View for $name {
            const NAME: &'static str = "declared";
            const HISTORY: History = History::$history;
            const INDEXES: &'static [&'static str] = $indexes;
            type Key = $key;

            fn handlers() -> Handlers<Self> {
                Handlers::new().on::<AccountEvent>()
            }

            fn indexed(&self) -> Vec<String> {
                let entry = |name: &&str| format!("{name}{}", self.events);
                Self::INDEXES.iter().map(entry).collect()
            }
        }

        impl Project<AccountEvent> for $name {
            fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
                row.events += 1;
                Ok(())
            }
        }

        impl Counts for $name {
            fn account() -> $key {
                "7".parse().unwrap()
            }

            fn events(&self) -> u64 {
                self.events
            }
        }
    };
}

declared!(Plain, String, None, &[]);
declared!(Versions, String, Versions, &[]);
declared!(Dated, String, Bitemporal, &["a"]);
declared!(Indexed, String, None, &["a", "b"]);
declared!(Turned, String, None, &["b", "a"]);
declared!(Numbered, u64, None, &["a"]);

/// One more event happens, and the program of this declaration counts them all.
async fn counts<V: Counts>(store: &TestStore, slots: u16, events: &mut u64) {
    let setup = ViewSetup::<V>::new().options(options().slots(slots));
    let db = Annals::on(store.handle())
        .with(setup)
        .start()
        .await
        .unwrap();
    let view = db.view::<V>();
    for _ in 0..2 {
        let done = happens(&db, "7", deposited(1)).await;
        *events += 1;
        let said = format!("{} in {slots}", std::any::type_name::<V>());
        let row = view.get(V::account()).at_least(&done).await.unwrap();
        assert_eq!(row.map(|row| row.events()), Some(*events), "{said}");
        let rows = view.rows().await.unwrap().rows;
        assert_eq!(rows.len(), 1, "{said}");
        for index in V::INDEXES {
            let entry = format!("{index}{events}");
            let found = view.rows().by_index(index, entry.clone()..=entry);
            assert_eq!(found.await.unwrap().rows.len(), 1, "{said}: {index}");
        }
        view.wait_for(&done, TIMEOUT).await.unwrap();
    }
    if V::HISTORY != History::None {
        let first = view.get(V::account()).as_of(1).await.unwrap();
        assert_eq!(first.map(|row| row.events()), Some(1));
    }
    db.stop().await;
}

#[tokio::test]
async fn a_view_that_is_declared_otherwise_reads_what_is_right() {
    let store = store().await;
    let mut events = 0;
    for slots in [1, 3, 2] {
        counts::<Plain>(&store, slots, &mut events).await;
        counts::<Versions>(&store, slots, &mut events).await;
        counts::<Indexed>(&store, slots, &mut events).await;
        counts::<Turned>(&store, slots, &mut events).await;
        counts::<Numbered>(&store, slots, &mut events).await;
        counts::<Dated>(&store, slots, &mut events).await;
        counts::<Indexed>(&store, slots, &mut events).await;
    }
}
