//! The pipeline: points of each player and hour, and of these the ten highest.

use std::fmt;
use std::time::Duration;

use annals::pipeline::{Fold, Pipeline, Time, Window, window_at};
use annals::prelude::*;
use chrono::TimeDelta;

use crate::game::{GameEvent, begin};

/// The best of an hour, best first; of equal ones the lower name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "leaderboard", key = Window, history)]
pub(crate) struct Board {
    pub(crate) best: Vec<(String, i64)>,
}

/// What a player has in an hour.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Points(i64);

impl Fold<i64> for Points {
    fn add(&mut self, points: &i64) {
        self.0 += points;
    }

    fn merge(&mut self, other: Points) {
        self.0 += other.0;
    }
}

/// The ten best of each hour, kept at every change.
pub(crate) fn leaderboard() -> Pipeline {
    Pipeline::new("leaderboard", 1, |log| {
        log.events::<GameEvent>()
            .out_of_order_by(Duration::from_secs(20))
            .map(|event| match &**event {
                GameEvent::Scored { player, points } => (player.clone(), *points),
            })
            .key_by(|(player, _)| player.clone())
            .map(|_, (_, points)| *points)
            .tumbling(Duration::from_hours(1))
            .folded::<Points>()
            .on_update()
            .top(10, |points| points.0)
            .into_view_as::<Board>(|(), _, best| Board { best: best.clone() });
    })
}

/// The window of an hour of the game, the first one is 0.
pub(crate) fn hour(number: i64) -> Window {
    let start = begin() + TimeDelta::hours(number);
    window_at(Time::from_micros(start.timestamp_micros()))
}

impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (player, points)) in (1..).zip(&self.best) {
            writeln!(f, "{place:>4}. {player} {points}")?;
        }
        Ok(())
    }
}
