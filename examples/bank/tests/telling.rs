//! What the program prints, on a store whose clock is held.

use annals::prelude::*;
use annals::testing;
use indicatif::ProgressBar;

use crate::{history, story, views};

#[tokio::test]
async fn the_story_is_told() {
    let mut told = Vec::new();
    story::tell(&bank().await, &mut told).await.unwrap();
    insta::assert_snapshot!(String::from_utf8(told).unwrap());
}

#[tokio::test]
async fn an_account_has_a_history() {
    let db = bank().await;
    story::tell(&db, &mut Vec::new()).await.unwrap();
    let mut printed = Vec::new();
    assert!(
        history::print(&db, "alice", "Alice", &mut printed)
            .await
            .unwrap()
    );
    insta::assert_snapshot!(String::from_utf8(printed).unwrap());
    assert!(
        !history::print(&db, "carol", "Carol", &mut Vec::new())
            .await
            .unwrap()
    );
}

async fn bank() -> Program {
    views::up(testing::annals().clone(), None, &ProgressBar::hidden())
        .await
        .unwrap()
}
