//! Waiting ends where nothing is left to wait for.

use std::sync::Arc;

use annals_core::{Annals, GenerationSpec, GenerationStore, Log, MemoryStore};
use tokio::sync::watch;

use super::*;
use crate::generation::RunningGeneration;
use crate::kind::Kind;

#[tokio::test]
async fn waiting_for_a_build_ends_when_it_is_dropped() {
    let store = Arc::new(MemoryStore::new());
    let spec = GenerationSpec::new("balances", 1, store.id());
    let generation = store.begin_generation(spec.clone()).await.unwrap();
    let db = Annals::on(Arc::clone(&store) as _);
    let views = ViewLocation::Own(Arc::clone(&store) as _);
    let context = WorkerContext::new(&db, &views, "owner");
    let workers = GenerationWorkers::new(Kind::View, spec);
    let follow = |of: &Generation| {
        RunningGeneration::new(of.clone(), Vec::new(), watch::Sender::default(), Vec::new())
    };
    workers.follow_only(&[generation], follow).await;

    let catch_up = CatchUp::new(&context, &workers);
    let mut built = pin!(catch_up.built());
    tokio::select! {
        biased;
        ended = &mut built => panic!("it is being built: {ended:?}"),
        () = std::future::ready(()) => {}
    }
    workers.follow_only(&[], follow).await;
    let ended = tokio::time::timeout(Duration::from_secs(60), built).await;
    let error = ended.expect("it waits for ever").unwrap_err();
    assert_eq!(
        error.to_string(),
        "it has stopped: the generation of `balances` that was being built was dropped; start the \
         program again, which begins another one"
    );
}
