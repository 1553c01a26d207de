//! The cases about owners of partitions pass on a store that keeps the promise, and each fails on
//! one that breaks it.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use annals_core::conformance::faulty::{FaultyStore, StoreFault};
use annals_core::conformance::{OwnedFixture, owned, run};
use annals_core::{
    Append, AppendError, Appended, ChangeStream, EventId, LogPage, MemoryStore, Placed, ReadLog,
    Store, StoreError, StreamState,
};
use async_trait::async_trait;

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Nothing,
    NamesNoOwner,
    NamesTheFirstOwner,
    TakesAppendsOfReaders,
    TakesChangesOfReaders,
    AcknowledgesWithoutOwning,
    WritesAndSaysItDoesNotOwn,
    BeginsAgainWithEachOwner,
    ShowsPartsOfAppends,
    LosesEventsWithItsCopy,
    LosesIdsWithItsCopy,
}

/// A memory store with one owner, the one that was opened last.
#[derive(Debug)]
struct Owned {
    wrong: Wrong,
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: MemoryStore,
    owners: Vec<String>,
    has_lost_its_copy: bool,
}

/// A handle of one process.
#[derive(Debug)]
struct Handle {
    of: Arc<Owned>,
    /// Which owner it is, counted from 1; nothing for a reader.
    number: Option<usize>,
}

impl Handle {
    fn refusal(&self) -> Option<AppendError> {
        let shared = self.of.shared.lock().unwrap();
        if self.number == Some(shared.owners.len()) {
            return None;
        }
        let owner = match self.of.wrong {
            Wrong::NamesNoOwner => None,
            Wrong::NamesTheFirstOwner => shared.owners.first(),
            _ => shared.owners.last(),
        };
        Some(AppendError::NotOwner {
            owner: owner.cloned(),
        })
    }
}

/// Places that were never written to.
async fn made_up(store: &dyn Store, append: &Append) -> Appended {
    let (stream, _) = append.events.first().unwrap();
    let partition = store.partition_of(stream);
    let head = store.head(partition).await.unwrap().visible;
    let version = store.stream_state(stream).await.unwrap().version;
    let placed = (1..)
        .zip(&append.events)
        .map(|(n, (stream, event))| Placed {
            id: event.id,
            stream: stream.clone(),
            version: (version.get() + n).into(),
            partition,
            position: head.plus(n),
        });
    Appended::new(store.id(), placed.collect(), false)
}

#[async_trait]
impl StoreFault for Handle {
    async fn append(&self, store: &dyn Store, mut append: Append) -> Result<Appended, AppendError> {
        let wrong = self.of.wrong;
        match self.refusal() {
            None if wrong == Wrong::WritesAndSaysItDoesNotOwn => {
                store.append(append).await?;
                return Err(AppendError::NotOwner { owner: None });
            }
            None => {}
            Some(_) if wrong == Wrong::TakesAppendsOfReaders && self.number.is_none() => {}
            Some(_) if wrong == Wrong::AcknowledgesWithoutOwning && self.number.is_some() => {
                return Ok(made_up(store, &append).await);
            }
            Some(refusal) => return Err(refusal),
        }
        if wrong == Wrong::LosesIdsWithItsCopy && self.of.shared.lock().unwrap().has_lost_its_copy {
            append.expectations.clear();
            for (_, event) in &mut append.events {
                event.id = EventId::random();
            }
        }
        store.append(append).await
    }

    async fn change_stream(
        &self,
        store: &dyn Store,
        change: ChangeStream,
    ) -> Result<StreamState, AppendError> {
        match self.refusal() {
            Some(refusal) if self.of.wrong != Wrong::TakesChangesOfReaders => Err(refusal),
            _ => store.change_stream(change).await,
        }
    }

    async fn read_log(&self, store: &dyn Store, mut read: ReadLog) -> Result<LogPage, StoreError> {
        if self.of.wrong == Wrong::ShowsPartsOfAppends {
            read.up_to = read.up_to.min(read.after.plus(3));
        }
        store.read(read).await
    }
}

#[derive(Debug)]
struct OwnedStores(Arc<Owned>);

impl OwnedStores {
    fn new(wrong: Wrong) -> OwnedStores {
        OwnedStores(Arc::new(Owned {
            wrong,
            shared: Mutex::new(Shared {
                store: MemoryStore::with_partitions(3),
                owners: Vec::new(),
                has_lost_its_copy: false,
            }),
        }))
    }

    fn handle(&self, number: Option<usize>) -> Arc<dyn Store> {
        let store = self.0.shared.lock().unwrap().store.clone();
        let of = Arc::clone(&self.0);
        FaultyStore::new(Arc::new(store), Handle { of, number })
    }
}

#[async_trait]
impl OwnedFixture for OwnedStores {
    async fn open_owner(&self, process: &str) -> Arc<dyn Store> {
        let mut shared = self.0.shared.lock().unwrap();
        shared.owners.push(process.to_owned());
        if self.0.wrong == Wrong::BeginsAgainWithEachOwner {
            shared.store = MemoryStore::with_partitions(3);
        }
        let number = shared.owners.len();
        drop(shared);
        self.handle(Some(number))
    }

    async fn open_reader(&self) -> Arc<dyn Store> {
        self.handle(None)
    }

    async fn lose_copies(&self) {
        let mut shared = self.0.shared.lock().unwrap();
        shared.has_lost_its_copy = true;
        if self.0.wrong == Wrong::LosesEventsWithItsCopy {
            shared.store = MemoryStore::with_partitions(3);
        }
    }
}

/// The names of the cases that fail on such a store.
fn failing(wrong: Wrong) -> Vec<&'static str> {
    let mut failing = Vec::new();
    macro_rules! cases {
        ($($case:ident)*) => {
            $(
                let case = AssertUnwindSafe(|| {
                    run(async move { owned::$case(&OwnedStores::new(wrong)).await });
                });
                if catch_unwind(case).is_err() {
                    failing.push(stringify!($case));
                }
            )*
        };
    }
    cases! {
        an_append_to_a_foreign_partition_names_the_owner
        a_new_owner_goes_on_at_the_next_version
        an_owner_that_was_shut_out_acknowledges_nothing
        of_two_that_own_at_once_what_is_acknowledged_stays
        a_reader_sees_appends_soon_and_whole
        a_lost_local_copy_is_made_again
        an_id_is_known_after_the_copy_was_lost
    }
    failing
}

#[test]
fn a_store_that_keeps_the_promise_passes_every_case() {
    assert_eq!(failing(Wrong::Nothing), [""; 0]);
}

#[test]
fn a_store_that_breaks_the_promise_fails_the_case() {
    for (wrong, case) in [
        (Wrong::NamesNoOwner, "an_append_to_a_foreign"),
        (Wrong::NamesTheFirstOwner, "a_new_owner"),
        (Wrong::TakesAppendsOfReaders, "an_append_to_a_foreign"),
        (Wrong::TakesChangesOfReaders, "an_append_to_a_foreign"),
        (
            Wrong::AcknowledgesWithoutOwning,
            "an_owner_that_was_shut_out",
        ),
        (Wrong::AcknowledgesWithoutOwning, "of_two_that_own"),
        (Wrong::WritesAndSaysItDoesNotOwn, "of_two_that_own"),
        (Wrong::BeginsAgainWithEachOwner, "a_new_owner"),
        (Wrong::ShowsPartsOfAppends, "a_reader_sees_appends"),
        (Wrong::LosesEventsWithItsCopy, "a_lost_local_copy"),
        (Wrong::LosesEventsWithItsCopy, "an_id_is_known"),
        (Wrong::LosesIdsWithItsCopy, "an_id_is_known"),
    ] {
        let failing = failing(wrong);
        assert!(
            failing.iter().any(|name| name.starts_with(case)),
            "{wrong:?} fails {failing:?}, not `{case}…`"
        );
    }
}
