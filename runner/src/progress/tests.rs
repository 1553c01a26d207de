//! What a worker knows of its slot when it has only just taken it.

use annals_core::{Annals, GenerationSpec, GenerationStore, Log, MemoryStore, SystemClock};

use super::*;
use crate::context::WorkerContext;
use crate::location::ViewLocation;

#[tokio::test]
async fn dead_letters_are_unknown_until_the_worker_has_read_them() {
    let store = Arc::new(MemoryStore::new());
    let spec = GenerationSpec::new("balances", 1, store.id());
    let generation = store.begin_generation(spec).await.unwrap();
    let db = Annals::on(Arc::clone(&store) as _);
    let views = ViewLocation::Own(Arc::clone(&store) as _);
    let context = WorkerContext::new(&db, &views, "owner");
    let progress = Progress::of(Kind::View, &generation, 0, context.clock());
    let slot = progress.watch();
    let up_to = |position| Token::new(store.id()).with(Partition(0), Position::new(position));
    let first = store.incarnation();
    let has_none = |position| {
        let progress = slot.borrow();
        progress.is_without_dead_letters(&up_to(position), first)
    };

    progress.follows(first);
    progress.held_by(Some("owner"), 0);
    progress.reached(Partition(0), Position::new(5));
    assert!(!has_none(5), "the worker before may have made some");
    progress.dead_letter_keys(0);
    assert!(has_none(5));
    assert!(!has_none(6), "another worker may have settled it");
    progress.dead_letter_keys(1);
    assert!(!has_none(5));

    progress.dead_letter_keys(0);
    progress.held_by(None, 0);
    progress.held_by(Some("owner"), 0);
    assert!(!has_none(5), "others had the slot meanwhile");
}

#[tokio::test]
async fn nothing_is_reached_yet_in_a_log_that_was_restored() {
    let store = Arc::new(MemoryStore::new());
    let spec = GenerationSpec::new("balances", 1, store.id());
    let generation = store.begin_generation(spec).await.unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let progress = Progress::of(Kind::View, &generation, 0, &clock);
    let slot = progress.watch();
    let token = Token::new(store.id()).with(Partition(0), Position::new(5));
    let first = store.incarnation();

    progress.follows(first);
    progress.held_by(Some("owner"), 0);
    progress.reached(Partition(0), Position::new(7));
    assert!(slot.borrow().has_reached(&token));
    progress.follows(first);
    assert!(slot.borrow().has_reached(&token), "it is the same log");
    let next = first.next(store.id());
    assert!(!slot.borrow().works_in(next));
    progress.follows(next);
    assert!(slot.borrow().works_in(next));
    assert!(!slot.borrow().has_reached(&token));
}
