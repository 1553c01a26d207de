//! A game of three hours: who scored how much, and when.

use std::error::Error;

use annals::prelude::*;
use annals::store::{Append, NewEvent};
use annals::{ManualClock, Partition, Store};
use chrono::{DateTime, TimeDelta, Utc};

/// Events of the game, players, and how long it takes.
pub(crate) const EVENTS: u64 = 50_000;
pub(crate) const PLAYERS: u64 = 1_000;
const SECONDS: u64 = 3 * 3_600;
/// Events of one append.
const APPEND: usize = 100;

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(category = "game")]
pub(crate) enum GameEvent {
    /// A player got points, or lost some.
    Scored { player: String, points: i64 },
}

/// When the game begins.
pub(crate) fn begin() -> DateTime<Utc> {
    DateTime::from_timestamp(1_774_951_200, 0).unwrap_or_default()
}

/// The events of a game, in the order in which they become known.
pub(crate) struct Game {
    state: u64,
    next: u64,
}

/// A player scored.
#[derive(Clone, Debug)]
pub(crate) struct Scored {
    pub(crate) at: DateTime<Utc>,
    pub(crate) recorded: DateTime<Utc>,
    pub(crate) player: String,
    pub(crate) points: i64,
}

impl Game {
    /// Another seed is another game.
    pub(crate) fn new(seed: u64) -> Game {
        Game {
            state: seed,
            next: 0,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % below
    }
}

impl Iterator for Game {
    type Item = Scored;

    fn next(&mut self) -> Option<Scored> {
        if self.next == EVENTS {
            return None;
        }
        let micros = self.next * SECONDS * 1_000_000 / EVENTS;
        self.next += 1;
        let recorded = begin() + TimeDelta::microseconds(micros as i64);
        // Some become known up to twenty seconds later.
        let late = self.draw(20_000_000).min(micros);
        let at = recorded - TimeDelta::microseconds(late as i64);
        // A few play much more than the others.
        let many = self.draw(PLAYERS);
        let player = self.draw(many + 1);
        Some(Scored {
            at,
            recorded,
            player: format!("player-{player:03}"),
            points: self.draw(12) as i64 - 1,
        })
    }
}

/// Writes a game into a log, each event recorded when it became known. It goes on after what is
/// there already, and `told` is called after each append.
pub(crate) async fn play(
    store: &dyn Store,
    clock: &ManualClock,
    game: impl Iterator<Item = Scored>,
    mut told: impl FnMut(),
) -> Result<(), Box<dyn Error>> {
    // An append is written as a whole or not at all.
    let played = store.head(Partition(0)).await?.visible.get() as usize;
    let mut batch = Vec::with_capacity(APPEND);
    for (number, scored) in game.enumerate().skip(played) {
        let Scored {
            at,
            recorded,
            player,
            points,
        } = scored;
        let mut event = NewEvent::of(&GameEvent::Scored { player, points })?;
        event.occurred_at = at;
        batch.push(event);
        if batch.len() == APPEND {
            clock.set(recorded);
            let stream = StreamId::new(format!("game-{number}"))?;
            let append = Append::new(stream, std::mem::take(&mut batch));
            store.append(append).await?;
            told();
        }
    }
    Ok(())
}
