//! Building a read model from the whole log, end to end into its table.

use std::sync::Arc;

use annals::prelude::*;
use annals::projections::Options;
use annals::read_model::ViewStore;
use annals::{Annals, Store};

use crate::Outcome;
use crate::account::AccountEvent;
use crate::rate::{Rate, Watch};

/// A row for each account, without its past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "balances", version = 1, events(AccountEvent))]
#[allow(clippy::exhaustive_structs)]
pub struct Balance {
    /// What is on it.
    pub cents: i64,
    /// What was folded into it.
    pub events: u64,
}

/// The same with its past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "balances_then", version = 1, events(AccountEvent), history)]
#[allow(clippy::exhaustive_structs)]
pub struct BalanceThen {
    /// What is on it.
    pub cents: i64,
    /// What was folded into it.
    pub events: u64,
}

/// What an event does to a row.
pub(crate) fn fold(cents: &mut i64, events: &mut u64, event: &AccountEvent) {
    *events += 1;
    *cents += crate::replay::cents(event);
}

impl Project<AccountEvent> for Balance {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        let row = &mut **row;
        fold(&mut row.cents, &mut row.events, event);
        Ok(())
    }
}

impl Project<AccountEvent> for BalanceThen {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        let row = &mut **row;
        fold(&mut row.cents, &mut row.events, event);
        Ok(())
    }
}

/// Folds the whole log of `store` into a view of `slots` slots in `views`, where there is none yet,
/// until readers see it.
///
/// # Errors
///
/// Those of the stores, and a row that holds what it should not.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use annals::{Store, read_model::ViewStore};
/// # type Outcome = annals_benches::Outcome<()>;
/// # async fn example(store: Arc<dyn Store>, views: Arc<dyn ViewStore>) -> Outcome {
/// use annals_benches::view::{Balance, rebuild};
///
/// let rate = rebuild::<Balance>(&store, views, 1_000_000, 1).await?;
/// println!("{} events/s", rate.per_second());
/// # Ok(())
/// # }
/// ```
pub async fn rebuild<V: View>(
    store: &Arc<dyn Store>,
    views: Arc<dyn ViewStore>,
    events: usize,
    slots: u16,
) -> Outcome<Rate> {
    let db = Annals::on(Arc::clone(store));
    let watch = Watch::start();
    // Rows are compared with a replay on another occasion: it would be a second reading of the log.
    let projection = V::projection().options(Options::default().verified_keys(0).slots(slots));
    let program = db.with(projection).views_in(views).start().await?;
    let rate = watch.stop(events);
    program.stop().await;
    Ok(rate)
}
