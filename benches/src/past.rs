//! Asking a view what a row was.

use std::sync::Arc;
use std::time::Instant;

use annals::projections::{Options, Program};
use annals::read_model::ViewStore;
use annals::{Annals, Position, Store, prelude::*};

use crate::latency::{Laps, Latencies};
use crate::seed::Seed;
use crate::view::{BalanceThen, fold};
use crate::{Outcome, account};

/// Questions about random accounts at random moments of a log.
///
/// ```
/// use annals_benches::past::Questions;
///
/// let questions = Questions { count: 100, accounts: 10, events: 1_000 };
/// assert_eq!(questions.make().len(), 100);
/// ```
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Questions {
    /// How many.
    pub count: usize,
    /// Accounts in the log.
    pub accounts: usize,
    /// Events in the log.
    pub events: usize,
}

/// What was answered, by which two ways of answering are compared, and how long each answer took.
#[derive(Clone, Debug, Default)]
#[allow(clippy::exhaustive_structs)]
pub struct Answers {
    /// How long.
    pub latencies: Latencies,
    /// All balances together.
    pub cents: i64,
    /// The events in all of them.
    pub events: u64,
}

impl Answers {
    pub(crate) fn take(&mut self, row: Option<&BalanceThen>) {
        let row = row.copied().unwrap_or_default();
        self.cents = self.cents.wrapping_add(row.cents);
        self.events = self.events + row.events;
    }
}

impl Questions {
    /// The accounts and the moments.
    pub fn make(&self) -> Vec<(usize, Position)> {
        let mut seed = Seed::new(8);
        let mut below = |end: usize| seed.below(end as u64);
        (0..self.count)
            .map(|_| {
                (
                    below(self.accounts) as usize,
                    Position::new(below(self.events) + 1),
                )
            })
            .collect()
    }

    /// Asks them one after another: `get(key).as_of(position)`.
    ///
    /// # Errors
    ///
    /// Those of the view.
    pub async fn ask(&self, program: &Program) -> Outcome<Answers> {
        let mut laps = Laps::start();
        let mut answers = Answers::default();
        for (number, position) in self.make() {
            let start = Instant::now();
            let row = program
                .view::<BalanceThen>()
                .get(number.to_string())
                .as_of(position)
                .await?;
            laps.took(start);
            answers.take(row.as_ref());
        }
        Ok(Answers {
            latencies: laps.stop(),
            ..answers
        })
    }

    /// Answers them without a view: by reading all typed events up to the moment, and folding those
    /// of the account.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn replay(&self, db: &Annals) -> Outcome<Answers> {
        let mut laps = Laps::start();
        let mut answers = Answers::default();
        for (number, position) in self.make() {
            let stream = account::stream(number)?;
            let start = Instant::now();
            let mut row = BalanceThen::default();
            let mut pages = db.events().up_to(position).typed::<account::AccountEvent>();
            while let Some(events) = pages.next().await? {
                for event in events.iter().filter(|event| event.record.stream == stream) {
                    fold(&mut row.cents, &mut row.events, event);
                }
            }
            laps.took(start);
            answers.take(Some(&row));
        }
        Ok(Answers {
            latencies: laps.stop(),
            ..answers
        })
    }
}

/// A program with the view with history of the log of `store`, in `views`; built first when it is
/// not there.
///
/// # Errors
///
/// Those of the stores.
pub async fn program(store: &Arc<dyn Store>, views: Arc<dyn ViewStore>) -> Outcome<Program> {
    let projection = BalanceThen::projection().options(Options::default().verified_keys(0));
    Ok(Annals::on(Arc::clone(store))
        .with(projection)
        .views_in(views)
        .start()
        .await?)
}
