//! What becomes of a generation whose log has other partitions by now.

use annals_core::{
    Annals, Clock, GenerationId, GenerationSpec, Log, MemoryStore, SystemClock, ViewStore,
};

use super::*;
use crate::kind::Kind;
use crate::location::ViewLocation;

/// What is said of a generation that was begun with two partitions and this name.
fn said(view: &str, has: u32, may_grow: bool) -> String {
    let store = Arc::new(MemoryStore::with_partitions(has));
    let mut spec = GenerationSpec::new(view, 1, store.id());
    spec.partitions = 2;
    let db = Annals::on(Arc::clone(&store) as _);
    let views = ViewLocation::Own(store as Arc<dyn ViewStore>);
    let context = WorkerContext::new(&db, &views, "owner");
    let workers = GenerationWorkers::new(Kind::View, spec.clone());
    let now = SystemClock.now();
    let generation = Generation::new(GenerationId(7), spec, Phase::Live, now, Position::MAX);
    let slot = Slot::of_operator(&context, &generation, 0, &workers);
    match slot.check_partitions_of(&generation, may_grow) {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn as_many_partitions_as_before_stop_nothing() {
    assert_eq!(said("balances", 2, false), "");
}

#[tokio::test]
async fn only_what_can_be_rebuilt_is_to_be_rebuilt() {
    let go_on = "go on with `Topic::accept_more_partitions(2, 3)`";
    let view = said("balances", 3, true);
    assert!(
        view.contains(&format!("{go_on}, or rebuild it; if it matters")),
        "{view}"
    );
    let relay = said("$relay/bank", 3, true);
    assert!(
        relay.contains(&format!("{go_on}; if it matters")),
        "{relay}"
    );
    let pipeline = said("alerts", 3, false);
    assert!(
        pipeline.ends_with("rebuild it, or declare a new version"),
        "{pipeline}"
    );
}

#[tokio::test]
async fn a_program_that_sees_fewer_partitions_starts_again_first() {
    let view = said("balances", 1, true);
    let begun = "generation 7 of `balances` was begun when its log had 2 partitions, it has 1 now";
    assert!(
        view.starts_with(&format!("{begun}: start the program again")),
        "{view}"
    );
    assert!(view.contains("rebuild the view `balances`"), "{view}");
    let relay = said("$relay/bank", 1, true);
    assert!(relay.contains("give the relay `bank` another name"));
}
