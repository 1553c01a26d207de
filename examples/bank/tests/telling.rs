//! What the programs prints, on a store whose clock stands still.

use std::sync::Arc;

use annals::prelude::*;
use annals::{ManualClock, MemoryStore};

use crate::{history, story};

fn at_noon() -> Annals {
    let clock = Arc::new(ManualClock::at("2026-03-31T12:00:00Z".parse().unwrap()));
    Annals::on(Arc::new(MemoryStore::with_clock(clock)))
}

#[tokio::test]
async fn the_story_is_told() {
    let mut told = Vec::new();
    story::tell(&at_noon(), &mut told).await.unwrap();
    insta::assert_snapshot!(String::from_utf8(told).unwrap());
}

#[tokio::test]
async fn an_account_has_a_history() {
    let db = at_noon();
    story::tell(&db, &mut Vec::new()).await.unwrap();
    let mut printed = Vec::new();
    assert!(history::print(&db, "alice", "Alice", &mut printed).await.unwrap());
    insta::assert_snapshot!(String::from_utf8(printed).unwrap());
    assert!(!history::print(&db, "carol", "Carol", &mut Vec::new()).await.unwrap());
}
