//! The read models of the bank: registered, brought up to the log.

use std::time::Duration;

use annals::prelude::*;
use annals::projections::{RowEntry, RowsOf, SlotProgress, SlotState, StartError, Status, ViewError};
use annals::{Partition, Phase, StoreError};
use indicatif::ProgressBar;

use crate::balances::BalanceChange;
use crate::statements::MonthlyStatement;
use crate::volume::DailyVolume;

/// How often the bar is drawn while read models are brought up.
const TICK: Duration = Duration::from_millis(100);

/// Why the read models cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotUp {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{0}")]
    Stopped(String),
    #[error(transparent)]
    View(#[from] ViewError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Starts the read models and waits until they have seen everything that is in the log now. The first time on a file they are
/// built; later only what was recorded since is folded.
///
/// Whoever gets a program stops it in the end: then the next one need not wait until its leases run out.
pub(crate) async fn up(db: Annals, bar: &ProgressBar) -> Result<Program, NotUp> {
    let db = db
        .with(BalanceChange::projection())
        .with(MonthlyStatement::projection())
        .with(DailyVolume::projection())
        .start_in_background()
        .await?;
    match come_to_the_head(&db, bar).await {
        Ok(()) => Ok(db),
        Err(error) => {
            db.stop().await;
            Err(error)
        }
    }
}

async fn come_to_the_head(db: &Program, bar: &ProgressBar) -> Result<(), NotUp> {
    let head = head(db).await?;
    let total = head.position(Partition(0)).get();
    bar.set_length(total);
    // However long it takes: the bar tells, and what cannot go on is noticed below.
    let whole = Duration::MAX;
    let there = async {
        db.view::<BalanceChange>().wait_for(head.clone(), whole).await?;
        db.view::<MonthlyStatement>().wait_for(head.clone(), whole).await?;
        db.view::<DailyVolume>().wait_for(head.clone(), whole).await
    };
    tokio::pin!(there);
    loop {
        tokio::select! {
            there = &mut there => return Ok(there?),
            () = tokio::time::sleep(TICK) => {}
        }
        let all = db.status();
        let awaited = || all.iter().filter(|status| is_awaited(status, &all));
        if let Some(stopped) = awaited().find(|status| is_stopped(status)) {
            return Err(NotUp::Stopped(stopped.to_string()));
        }
        if let Some(slowest) = awaited().min_by_key(|status| reached(status)) {
            let (done, waits) = (reached(slowest), slowest.slots.iter().any(is_waiting));
            bar.set_position(done);
            bar.set_message(match waits {
                true => slowest.to_string(),
                false => {
                    let (rate, rest) = (bar.per_sec(), bar.eta().as_secs());
                    format!("{done} of {total} events, {rate:.0} a second, {rest} s to go")
                }
            });
        }
    }
}

/// What answers, or will as soon as it is complete.
fn is_awaited(status: &Status, all: &[Status]) -> bool {
    let has_live = all.iter().any(|other| other.view == status.view && other.phase == Phase::Live);
    status.phase == if has_live { Phase::Live } else { Phase::Building }
}

fn is_stopped(status: &Status) -> bool {
    status.refused.is_some() || status.slots.iter().any(|slot| matches!(slot.state, SlotState::Stopped { .. }))
}

fn is_waiting(slot: &SlotProgress) -> bool {
    matches!(slot.state, SlotState::Waiting { .. })
}

fn reached(status: &Status) -> u64 {
    status.slots.iter().map(|slot| slot.reached.values().map(|position| position.get()).sum()).min().unwrap_or_default()
}

/// Everything that is in the log now: what a question asks a read model to have seen.
pub(crate) async fn head(db: &Annals) -> Result<Token, StoreError> {
    let head = db.store().head(Partition(0)).await?.visible;
    Ok(Token::new(db.store().id()).with(Partition(0), head))
}

/// Takes every row of a question, page by page.
pub(crate) async fn each_row<V: View>(
    rows: impl Fn() -> RowsOf<V>,
    mut take: impl FnMut(RowEntry<V>),
) -> Result<(), ViewError> {
    let mut after = None;
    loop {
        let page = rows().after(after).await?;
        page.rows.into_iter().for_each(&mut take);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}
