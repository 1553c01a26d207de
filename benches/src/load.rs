//! Loading the state of one aggregate from its stream, without the cache.

use std::sync::Arc;

use annals::store::Append;
use annals::{Aggregate, Annals, Store};

use crate::Outcome;
use crate::account::{self, Account, AccountEvent, KeptAccount};
use crate::rate::{Rate, Watch};
use crate::seed::Seed;

/// Events after the snapshot.
pub const TAIL: usize = 5;

/// Loads one stream again and again.
///
/// ```no_run
/// # async fn example(store: std::sync::Arc<dyn annals::Store>) -> annals_benches::Outcome<()> {
/// use annals_benches::load::Loads;
///
/// let loads = Loads { events: 1_000, loads: 100 };
/// loads.prepare(&store).await?;
/// let db = annals::Annals::on(store);
/// println!("{} loads/s", loads.run(&db, true).await?.per_second());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Loads {
    /// Events in the stream.
    pub events: usize,
    /// How often it is loaded.
    pub loads: usize,
}

impl Loads {
    /// Writes the stream, and a snapshot [`TAIL`] events before its end.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn prepare(&self, store: &Arc<dyn Store>) -> Outcome<()> {
        let mut seed = Seed::new(4);
        let stream = account::stream(0)?;
        let before = self.events - TAIL - 1;
        let mut written = 0;
        while written < before {
            let events = account::events(&mut seed, written, (before - written).min(1_000))?;
            written += events.len();
            store.append(Append::new(stream.clone(), events)).await?;
        }
        let db = Annals::on(Arc::clone(store));
        // A command keeps the snapshot.
        let decide = |account: &KeptAccount| account.0.deposit(1);
        db.aggregate::<KeptAccount>(0).run(decide).await?;
        let tail = account::events(&mut seed, self.events - TAIL, TAIL)?;
        store.append(Append::new(stream, tail)).await?;
        Ok(())
    }

    /// Loads it, with the snapshot or without.
    ///
    /// # Errors
    ///
    /// Those of the store, and a state that is not what was written.
    pub async fn run(&self, db: &Annals, with_snapshot: bool) -> Outcome<Rate> {
        match with_snapshot {
            true => self.load::<KeptAccount>(db).await,
            false => self.load::<Account>(db).await,
        }
    }

    async fn load<A: Aggregate<Event = AccountEvent>>(&self, db: &Annals) -> Outcome<Rate> {
        let watch = Watch::start();
        for _ in 0..self.loads {
            let loaded = db.aggregate::<A>(0).load().await?;
            if loaded.version().get() != self.events as u64 {
                return Err(
                    format!("loaded version {} of {}", loaded.version(), self.events).into(),
                );
            }
        }
        Ok(watch.stop(self.loads))
    }
}
