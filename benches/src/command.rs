//! Commands: load, decide, append, on few busy aggregates or on many that were not used for
//! a while.

use annals::Annals;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::account::Account;
use crate::append::join;
use crate::rate::{Rate, Watch};
use crate::seed::Seed;

/// Runs deposits on accounts picked at random, one after another in each task.
///
/// ```no_run
/// # async fn example(db: annals::Annals) -> annals_benches::Outcome<()> {
/// use annals_benches::command::Deposits;
///
/// let hot = Deposits { commands: 10_000, aggregates: 1, tasks: 64 };
/// println!("{} commands/s", hot.run(&db).await?.per_second());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Deposits {
    /// Commands in all.
    pub commands: usize,
    /// Accounts that they are given to.
    pub aggregates: usize,
    /// Tasks that give them.
    pub tasks: usize,
}

impl Deposits {
    /// The accounts and amounts of one task, in order.
    pub fn share(&self, task: usize) -> Vec<(usize, i64)> {
        let mut seed = Seed::new(3 + task as u64);
        let mut next = || {
            (
                seed.below(self.aggregates as u64) as usize,
                seed.below(1_000) as i64 + 1,
            )
        };
        (0..self.commands / self.tasks).map(|_| next()).collect()
    }

    /// Runs them.
    ///
    /// # Errors
    ///
    /// Those of the commands.
    pub async fn run(&self, db: &Annals) -> Outcome<Rate> {
        let shares: Vec<_> = (0..self.tasks).map(|task| self.share(task)).collect();
        let count = shares.iter().map(Vec::len).sum();
        let watch = Watch::start();
        let mut tasks = JoinSet::new();
        for share in shares {
            let db = db.clone();
            tasks.spawn(async move {
                for (number, cents) in share {
                    db.aggregate::<Account>(number)
                        .run(|account| account.deposit(cents))
                        .await?;
                }
                Outcome::Ok(())
            });
        }
        join(tasks).await?;
        Ok(watch.stop(count))
    }
}
