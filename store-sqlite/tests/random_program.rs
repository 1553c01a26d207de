//! Random programs of commands, deletions, truncations, archives and restarts: every answer about
//! the past is what was true then, or an error that says that it was archived.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::path::PathBuf;
use std::sync::Arc;

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::conformance::Dice;
use annals_core::{
    Aggregate, AggregateRef, Annals, Clock, CommandError, LoadError, Log, ManualClock, Partition,
    Position, Store, Version,
};
use annals_macros::Event;
use annals_sqlite::{Options, SqliteStore};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "account", crate = "annals_core")]
enum AccountEvent {
    Deposited {
        #[event(tag = "cents")]
        cents: i64,
    },
    BroughtForward {
        cents: i64,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Account {
    cents: i64,
}

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::BroughtForward { cents } => self.cents = *cents,
        }
    }
}

/// What is known of an account after a step.
#[derive(Clone, Debug, Default)]
struct Known {
    cents: i64,
    version: u64,
    tombstoned: bool,
}

const ACCOUNTS: usize = 3;

/// The log, as the program and its oracle see it.
struct Program {
    file: PathBuf,
    clock: Arc<ManualClock>,
    /// Two processes.
    stores: Vec<(SqliteStore, Annals)>,
    known: Vec<Known>,
    /// What was true after each step: when, how far the log went, and the accounts.
    past: Vec<(DateTime<Utc>, Position, Vec<Known>)>,
    /// The states of each account by version.
    versions: Vec<Vec<i64>>,
}

impl Program {
    async fn open(&self) -> (SqliteStore, Annals) {
        let options = Options::file(&self.file).clock(Arc::<ManualClock>::clone(&self.clock));
        let store = SqliteStore::open_with(options).await.unwrap();
        let shared: Arc<dyn Store> = Arc::new(store.clone());
        (store, Annals::on(shared))
    }

    fn account(&self, process: usize, n: usize) -> AggregateRef<Account> {
        self.stores[process].1.aggregate::<Account>(format!("{n}"))
    }

    async fn step(&mut self, dice: &mut Dice) {
        self.clock.advance(TimeDelta::seconds(1));
        let process = dice.roll(2) as usize;
        let n = dice.roll(ACCOUNTS as u64) as usize;
        let account = self.account(process, n);
        let cents = 1 + dice.roll(100) as i64;
        match dice.roll(20) {
            0 => {
                self.stores[process] = self.open().await;
            }
            1 | 2 => {
                account.delete().await.unwrap_or_default();
                if !self.known[n].tombstoned {
                    self.known[n].cents = 0;
                }
            }
            3 if dice.roll(10) == 0 => {
                account.tombstone().await.unwrap_or_default();
                self.known[n].tombstoned = true;
                self.known[n].cents = 0;
            }
            4 => {
                let before = self.known[n].version / 2 + 1;
                let _ = account.truncate_before(Version::new(before)).await;
            }
            5 | 6 => {
                let summary = |account: &Account| {
                    let cents = account.cents;
                    Ok::<_, String>(AccountEvent::BroughtForward { cents })
                };
                match account.archive(summary).await {
                    Ok(_) => self.advance(n, 0),
                    Err(CommandError::NotFound { .. } | CommandError::Tombstoned { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            _ => {
                let deposit = |_: &Account| Ok::<_, String>(AccountEvent::Deposited { cents });
                match account.run(deposit).await {
                    Ok(_) => self.advance(n, cents),
                    Err(_) => assert!(self.known[n].tombstoned),
                }
            }
        }
        let head = self.stores[process]
            .0
            .head(Partition(0))
            .await
            .unwrap()
            .visible;
        self.past.push((self.clock.now(), head, self.known.clone()));
    }

    fn advance(&mut self, n: usize, cents: i64) {
        self.known[n].cents += cents;
        self.known[n].version += 1;
        self.versions[n].push(self.known[n].cents);
    }

    /// Asks about all of the past; answers how often the answer was that it was archived.
    async fn ask(&self, seed: u64) -> usize {
        let mut archived = 0;
        let mut check = |answer: Result<i64, LoadError>, expected: i64, asked: String| match answer
        {
            Ok(cents) => assert_eq!(cents, expected, "seed {seed}: {asked}"),
            Err(LoadError::Archived { .. }) => archived += 1,
            Err(error) => panic!("seed {seed}: {asked}: {error:?}"),
        };
        for n in 0..ACCOUNTS {
            for process in 0..2 {
                let account = self.account(process, n);
                let now = account.load().await.map(|now| now.cents);
                check(now, self.known[n].cents, format!("account {n} now"));
            }
            let account = self.account(0, n);
            for (time, _, known) in &self.past {
                let later = *time + TimeDelta::milliseconds(500);
                let then = account.load().as_of(later).await.map(|then| then.cents);
                check(then, known[n].cents, format!("account {n} as of {time}"));
            }
            for (index, (_, position, known)) in self.past.iter().enumerate() {
                // A deletion has no position of its own: what is right at the last one before it
                // depends on whether it counts.
                let next = self.past.get(index + 1);
                if next.is_none_or(|(_, next, _)| next > position) {
                    let then = account.load().as_of(*position).await.map(|then| then.cents);
                    let before = self.past[..index].iter().rev();
                    let mut same = before.take_while(|(_, other, _)| other == position);
                    if same.all(|(.., other)| other[n].cents == known[n].cents) {
                        let asked = format!("account {n} as of position {position}");
                        check(then, known[n].cents, asked);
                    }
                }
            }
            for (index, cents) in self.versions[n].iter().enumerate() {
                let version = Version::new(index as u64 + 1);
                let then = account
                    .load()
                    .at_version(version)
                    .await
                    .map(|then| then.cents);
                check(then, *cents, format!("account {n} at version {version}"));
            }
        }
        archived
    }
}

async fn run(seed: u64, steps: usize) -> usize {
    let directory = TempDir::new().unwrap();
    let mut dice = Dice::new(seed);
    let mut program = Program {
        file: directory.path().join("log.db"),
        clock: Arc::new(ManualClock::default()),
        stores: Vec::new(),
        known: vec![Known::default(); ACCOUNTS],
        past: Vec::new(),
        versions: vec![Vec::new(); ACCOUNTS],
    };
    for _ in 0..2 {
        let opened = program.open().await;
        program.stores.push(opened);
    }
    for _ in 0..steps {
        program.step(&mut dice).await;
    }
    program.ask(seed).await
}

#[tokio::test]
async fn every_answer_about_the_past_is_right_or_an_error() {
    let runs = annals_core::conformance::rounds(8, 200);
    let mut archived = 0;
    for seed in 1..=runs {
        archived += run(seed, 60).await;
    }
    assert!(archived > 0, "nothing was archived, so nothing was tried");
}
