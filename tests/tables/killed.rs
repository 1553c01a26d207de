//! Processes that keep read models are killed at any moment.

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use annals::prelude::*;
use annals::store::{Log, ReadLog};
use annals_core::conformance::{Dice, rounds};

use crate::bank::WAIT;
use crate::fixture::LogWithTables;
use crate::inline_and_tables::{ACCOUNTS, command, equal_a_replay, start};

const PLACE: &str = "ANNALS_KILLS_PLACE";

/// Gives commands until it is killed.
pub(crate) fn work<G: LogWithTables>() {
    let Ok(place) = std::env::var(PLACE) else {
        return;
    };
    // Nothing kills it when the test has failed.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_line(&mut String::new());
        std::process::exit(1)
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = G::open(&place).await;
        let db = start::<G>(&store).await;
        let process = std::process::id();
        let mut dice = Dice::new(u64::from(process));
        // At other moments than those of other processes.
        let mut turns = tokio::time::interval(Duration::from_micros(1_000 + dice.roll(8_000)));
        loop {
            command(&db, process, &mut dice).await;
            turns.tick().await;
        }
    });
}

fn child<G: LogWithTables>(fixture: &G) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([G::CHILD, "--exact", "--ignored"])
        .env(PLACE, fixture.place());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    let ended = child.wait().unwrap();
    assert_eq!(ended.code(), None, "it had ended by itself");
}

/// How many events each process has appended, as far as the log was read.
struct Working {
    read: ReadLog,
    events: HashMap<String, u64>,
}

impl Working {
    /// How many there are of this one by now.
    async fn events_of(&mut self, log: &impl Log, process: u32) -> u64 {
        let page = log.read(self.read.clone()).await.unwrap();
        self.read.after = page.scanned;
        for actor in page
            .events
            .iter()
            .filter_map(|event| event.metadata.actor.as_deref())
        {
            *self.events.entry(actor.to_owned()).or_default() += 1;
        }
        self.events
            .get(&process.to_string())
            .copied()
            .unwrap_or_default()
    }
}

fn kills() -> u64 {
    rounds(8, 200)
}

pub(crate) async fn killed_processes_leave_rows_equal_to_a_replay<G: LogWithTables>() {
    let fixture = G::new().await;
    let kills = kills();
    let store = G::open(&fixture.place()).await;
    start::<G>(&store).await.stop().await;
    // A program that knows nothing of read models appends all the time, too.
    let foreign = Annals::on(Arc::new(store.clone()));
    let mut dice = Dice::new(kills);
    let mut working = Working {
        read: ReadLog::after(Position::START),
        events: HashMap::new(),
    };
    let mut one = child(&fixture);
    for _ in 0..kills {
        let other = child(&fixture);
        // It is killed in the middle of its work.
        let least = 1 + dice.roll(40);
        let began = working.events_of(&store, one.id()).await;
        let mut turns = tokio::time::interval(Duration::from_micros(1_000 + dice.roll(8_000)));
        let worked = async {
            while working.events_of(&store, one.id()).await < began + least {
                command(&foreign, std::process::id(), &mut dice).await;
                turns.tick().await;
            }
        };
        tokio::time::timeout(WAIT, worked).await.unwrap();
        end(std::mem::replace(&mut one, other));
    }
    end(one);
    let db = start::<G>(&store).await;
    let head = equal_a_replay(&fixture, &store, &db).await;
    println!(
        "{kills} kills: {head} events of {ACCOUNTS} accounts, each in its row and in the table \
         once"
    );
    db.stop().await;
}
