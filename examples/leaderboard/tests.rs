//! The boards are those that counting by hand gives, at every moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::Time;
use annals::prelude::*;
use annals::{ManualClock, MemoryStore};
use chrono::{DateTime, TimeDelta, Utc};

use crate::board::{Board, hour, leaderboard};
use crate::game::{EVENTS, Game, PLAYERS, Scored, begin, play};

/// The ten best of an hour, of all that was recorded by a moment.
fn counted(number: i64, by: DateTime<Utc>) -> Vec<(String, i64)> {
    counted_in(Game::new(7), number, by)
}

/// The same in a part of a game.
pub(crate) fn counted_in(
    game: impl Iterator<Item = Scored>,
    number: i64,
    by: DateTime<Utc>,
) -> Vec<(String, i64)> {
    let from = begin() + TimeDelta::hours(number);
    let mut points: BTreeMap<String, i64> = BTreeMap::new();
    // An append of a hundred is recorded with its last event.
    let game: Vec<_> = game.collect();
    let appends = game.chunks(100);
    let recorded = appends.filter(|append| append.last().is_some_and(|last| last.recorded <= by));
    for scored in recorded.flatten() {
        if scored.at >= from && scored.at < from + TimeDelta::hours(1) {
            *points.entry(scored.player.clone()).or_default() += scored.points;
        }
    }
    let mut best: Vec<_> = points.into_iter().collect();
    best.sort_by_key(|(player, points)| (-points, player.clone()));
    best.truncate(10);
    best
}

#[tokio::test(flavor = "multi_thread")]
async fn boards_are_exact_at_every_moment_also_after_a_rebuild() {
    let clock = Arc::new(ManualClock::default());
    let store = Arc::new(MemoryStore::new().on_clock(Arc::<ManualClock>::clone(&clock)));
    play(&*store, &clock, Game::new(7), || ()).await.unwrap();
    let db = Annals::on(store).with(leaderboard()).start().await.unwrap();
    let end = begin() + TimeDelta::hours(4);
    let end = Time::from_micros(end.timestamp_micros());
    let done = db.advance_clock(end).await.unwrap();
    for rebuilt in [false, true] {
        if rebuilt {
            let rebuild = db.pipeline("leaderboard").unwrap().rebuild();
            rebuild
                .begin()
                .await
                .unwrap()
                .finished(|_| ())
                .await
                .unwrap();
        }
        let boards = db.view::<Board>();
        boards
            .wait_for(done.clone(), Duration::from_secs(60))
            .await
            .unwrap();
        for number in 0..3 {
            let board = boards.get(hour(number)).await.unwrap().unwrap();
            assert_eq!(board.best, counted(number, begin() + TimeDelta::days(1)));
            assert_eq!(board.best.len(), 10);
        }
        for minutes in [1, 30, 59, 61, 90, 119, 150, 179] {
            let then = begin() + TimeDelta::minutes(minutes);
            let number = minutes / 60;
            let board = boards.get(hour(number)).as_of(then).await.unwrap();
            let board = board.unwrap_or_default();
            assert_eq!(board.best, counted(number, then), "after {minutes} minutes");
        }
    }
    db.stop().await;
}

#[test]
fn a_game_is_as_large_as_it_should_be() {
    let players: std::collections::BTreeSet<_> = Game::new(7).map(|scored| scored.player).collect();
    assert_eq!(Game::new(7).count() as u64, EVENTS);
    assert!(players.len() as u64 > PLAYERS * 9 / 10, "{}", players.len());
}
