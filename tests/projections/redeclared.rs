//! A view that programs declare in turn with another history, other indexes, keys and slots, and
//! under the same version: each reads what is right.

use annals_core::{
    Annals, Append, GenerationSpec, History, NewEvent, Phase, Position, Recorded, StreamId,
};
use annals_projections::{
    Handlers, IndexType, Poison, Project, ReadModels, Row, View, ViewKey, ViewSetup, With,
};
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
declared!(Counted, u64, None, &[]);

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

pub(crate) async fn a_view_that_is_declared_otherwise_reads_what_is_right() {
    let store = store().await;
    let mut events = 0;
    for slots in [1, 3, 2] {
        counts::<Plain>(&store, slots, &mut events).await;
        counts::<Counted>(&store, slots, &mut events).await;
        counts::<Versions>(&store, slots, &mut events).await;
        counts::<Indexed>(&store, slots, &mut events).await;
        counts::<Turned>(&store, slots, &mut events).await;
        counts::<Numbered>(&store, slots, &mut events).await;
        counts::<Dated>(&store, slots, &mut events).await;
        counts::<Indexed>(&store, slots, &mut events).await;
    }
}

/// Programs of both declarations run at once, and each reads its own rows.
async fn together<A: Counts, B: Counts>() {
    let store = store().await;
    let one = Annals::on(store.handle());
    let one = one.with(ViewSetup::<A>::new().options(options()));
    let one = one.start().await.unwrap();
    happens(&one, "7", deposited(1)).await;
    let other = Annals::on(store.another_handle().await);
    let other = other.with(ViewSetup::<B>::new().options(options()));
    let other = other.start().await.unwrap();
    for events in 2..5 {
        let done = happens(&one, "7", deposited(1)).await;
        let row = one.view::<A>().get(A::account()).at_least(&done);
        assert_eq!(row.await.unwrap().map(|row| row.events()), Some(events));
        let row = other.view::<B>().get(B::account()).at_least(&done);
        assert_eq!(row.await.unwrap().map(|row| row.events()), Some(events));
        let rows = one.view::<A>().rows().await.unwrap().rows;
        let keys: Vec<_> = rows.iter().map(|row| row.key.to_key()).collect();
        assert_eq!(keys, [A::account().to_key()]);
        let rows = other.view::<B>().rows().await.unwrap().rows;
        let keys: Vec<_> = rows.iter().map(|row| row.key.to_key()).collect();
        assert_eq!(keys, [B::account().to_key()]);
    }
    one.stop().await;
    other.stop().await;
}

pub(crate) async fn programs_of_other_declarations_share_no_rows() {
    together::<Plain, Counted>().await;
    together::<Counted, Plain>().await;
    together::<Plain, Versions>().await;
    together::<Plain, Indexed>().await;
    together::<Indexed, Turned>().await;
}

pub(crate) async fn a_view_that_is_rolled_back_can_be_reset() {
    let store = store().await;
    let mut events = 0;
    while events < 1_100 {
        let some = (0..100).map(|_| NewEvent::of(&deposited(1)).unwrap());
        let append = Append::new(StreamId::new("account-7").unwrap(), some);
        store.append(append).await.unwrap();
        events += 100;
    }
    counts::<Versions>(&store, 1, &mut events).await;
    // Its generation is the live one now.
    counts::<Plain>(&store, 1, &mut events).await;
    let setup = ViewSetup::<Versions>::new().options(options());
    let db = Annals::on(store.handle()).with(setup);
    let db = db.start().await.unwrap();
    let reset = db.rebuild::<Versions>().reset_to(1_050).await.unwrap();
    assert_eq!(reset.begins_at(), Position::new(1_024));
    reset.finished(|_| ()).await.unwrap();
    let done = happens(&db, "7", deposited(1)).await;
    let row = db.view::<Versions>().get("7").at_least(&done).await;
    assert_eq!(row.unwrap().map(|row| row.events), Some(events + 1));
    db.stop().await;
}

macro_rules! totals {
    ($name:ident, $index:ty) => {
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        struct $name {
            cents: i64,
        }

        impl View for $name {
            const NAME: &'static str = "totals";
            const INDEXES: &'static [&'static str] = &["cents"];
            type Key = String;

            fn handlers() -> Handlers<Self> {
                Handlers::new().on::<AccountEvent>()
            }

            fn indexed(&self) -> Vec<String> {
                vec![(self.cents as $index).to_key()]
            }

            fn index_types() -> Vec<IndexType> {
                vec![IndexType::of::<$index>()]
            }
        }

        impl Project<AccountEvent> for $name {
            fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
                if let AccountEvent::Deposited { cents } = **event {
                    row.cents += cents;
                }
                Ok(())
            }
        }
    };
}

totals!(Signed, i64);
totals!(Unsigned, u64);

pub(crate) async fn entries_of_another_type_are_in_an_index_of_their_own() {
    let store = store().await;
    let signed = Annals::on(store.handle());
    let signed = signed.with(ViewSetup::<Signed>::new().options(options()));
    let signed = signed.start().await.unwrap();
    happens(&signed, "1", deposited(5)).await;
    let unsigned = Annals::on(store.another_handle().await);
    let unsigned = unsigned.with(ViewSetup::<Unsigned>::new().options(options()));
    let unsigned = unsigned.start().await.unwrap();
    for account in 2..6 {
        let done = happens(&signed, &account.to_string(), deposited(5)).await;
        let view = signed.view::<Signed>();
        let rows = view.rows().by_index("cents", 0_i64..10).at_least(&done);
        assert_eq!(rows.await.unwrap().rows.len(), account);
        let view = unsigned.view::<Unsigned>();
        let rows = view.rows().by_index("cents", 0_u64..10).at_least(&done);
        assert_eq!(rows.await.unwrap().rows.len(), account);
    }
    signed.stop().await;
    unsigned.stop().await;
}

pub(crate) async fn a_generation_that_does_not_name_its_keys_goes_on() {
    let mut events = 0;
    let newer = store().await;
    counts::<Counted>(&newer, 1, &mut events).await;
    let declared = newer.views().generations("declared").await.unwrap();
    let handles = &declared[0].spec.handles;
    let named = |part: &&String| part.starts_with(GenerationSpec::KEYS);
    assert_eq!(handles.iter().filter(named).count(), 1, "{handles:?}");

    let older = store().await;
    let mut spec = declared[0].spec.clone();
    spec.log = older.id();
    spec.handles.retain(|part| !named(&part));
    let begun = older.views().begin_generation(spec).await.unwrap();
    let mut events = 0;
    counts::<Counted>(&older, 1, &mut events).await;
    let found = older.views().generations("declared").await.unwrap();
    let found: Vec<_> = found.iter().map(|of| (of.id, of.phase)).collect();
    assert_eq!(found, [(begun.id, Phase::Live)]);
}

pub(crate) async fn programs_that_start_in_turn_have_one_generation_each() {
    let store = store().await;
    let mut events = 0;
    for _ in 0..3 {
        counts::<Plain>(&store, 1, &mut events).await;
        counts::<Counted>(&store, 1, &mut events).await;
    }
    let found = store.views().generations("declared").await.unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
}
