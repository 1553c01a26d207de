//! The ten best players of each hour, from 50,000 events of 1,000 players in three hours.
//!
//! ```text
//! cargo run --example leaderboard [-- sqlite:leaderboard.db]
//! ```
//!
//! Kill it at any moment and run it again on the same file: the game goes on where it was, and no
//! board differs.
//!
//! Every hour begins at nothing. The board of an hour is a row of a view that keeps its past, so
//! it can be asked as it was at any moment, also in the middle of the hour: `as_of` is the moment
//! at which an event was recorded. The game that is played here is recorded as it happens, with
//! the store's clock held to the game's.

mod board;
#[path = "../ended/mod.rs"]
mod ended;
mod game;
#[cfg(test)]
#[allow(clippy::print_stdout, reason = "it tells the test that started it")]
mod killed;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::Time;
use annals::prelude::*;
use annals::sqlite::{Options, SqliteStore};
use annals::{Clock, ManualClock, SystemClock};
use chrono::TimeDelta;

use board::{Board, hour, leaderboard};
use game::{Game, begin, play};

#[tokio::main]
async fn main() -> ExitCode {
    let url = std::env::args().nth(1);
    let mut out = io::stdout().lock();
    ended::ended("leaderboard", run(url.as_deref(), &mut out).await)
}

async fn run(url: Option<&str>, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    // The clock of a game that was broken off is before its last event until the next one.
    let clock = Arc::new(ManualClock::at(begin()));
    let options = match url.and_then(|url| url.strip_prefix("sqlite:")) {
        Some(file) => Options::file(file),
        None => Options::in_memory(),
    };
    let store = SqliteStore::open_with(options.clock(Arc::<ManualClock>::clone(&clock))).await?;
    let db = Annals::on(Arc::new(store))
        .with(leaderboard())
        .start()
        .await?;
    let store = db.store();
    play(&**store, &clock, Game::new(7), || ()).await?;
    // The last hour closes when the log says that time has gone on.
    let after = begin() + TimeDelta::hours(4);
    clock.set(after.max(SystemClock.now()));
    let done = db.advance_clock(Time::from_micros(after.timestamp_micros()));
    let done = done.await?;
    let boards = db.view::<Board>();
    boards.wait_for(done, Duration::from_secs(60)).await?;
    for number in 0..3 {
        let board = boards.get(hour(number)).await?.unwrap_or_default();
        writeln!(out, "hour {}\n{board}", number + 1)?;
    }
    let half_past = begin() + TimeDelta::minutes(90);
    let running = boards.get(hour(1)).as_of(half_past).await?;
    writeln!(out, "hour 2 at half past\n{}", running.unwrap_or_default())?;
    if let Some(pipeline) = db.pipeline("leaderboard") {
        writeln!(out, "{}", pipeline.status())?;
    }
    db.stop().await;
    Ok(())
}
