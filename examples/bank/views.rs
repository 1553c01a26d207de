//! The read models of the bank: registered, brought up to the log, built anew.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::time::{Duration, Instant};

use annals::prelude::*;
use annals::projections::{
    Options, RebuildError, RowEntry, RowsOf, SlotProgress, SlotState, StartError, Status, ViewError, ViewKey,
};
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

/// Builds every read model anew, one after another, and says what came of it.
pub(crate) async fn rebuild(db: &Program, bar: &ProgressBar, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    rebuild_one::<BalanceChange>(db, bar, out).await?;
    rebuild_one::<MonthlyStatement>(db, bar, out).await?;
    rebuild_one::<DailyVolume>(db, bar, out).await
}

/// The one that serves goes on serving until the new one is complete. Then the rows of both are compared, and the old one goes.
async fn rebuild_one<V: View>(db: &Program, bar: &ProgressBar, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let before = Contents::of::<V>(db).await?;
    bar.reset();
    bar.set_message("");
    bar.set_prefix(format!("{}: ", V::NAME));
    let started = Instant::now();
    let building = match db.rebuild::<V>().begin().await {
        // Somebody else has just begun the same: it is one build, whoever waits for it.
        Err(RebuildError::AlreadyBuilding(view)) => {
            db.rebuild::<V>().under_way().await?.ok_or(RebuildError::AlreadyBuilding(view))?
        }
        begun => begun?,
    };
    building
        .finished(|progress| {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            bar.set_message(progress.to_string());
        })
        .await?;
    let seconds = started.elapsed().as_secs_f64();
    let after = Contents::of::<V>(db).await?;

    let (events, rows) = (after.events, after.rows);
    let rate = events as f64 / seconds.max(0.001);
    write!(out, "{}: {events} events folded anew in {seconds:.2} s ({rate:.0} events/s). ", V::NAME)?;
    let sample = rows.min(Options::default().verified_keys as u64);
    write!(out, "Before the switch {sample} rows were folded once more and were the same; ")?;
    if before.events != events {
        writeln!(out, "the log went on meanwhile, so the {rows} rows were not compared with those before.")?;
    } else if before == after {
        writeln!(out, "after it all {rows} rows are as they were.")?;
    } else {
        writeln!(out, "but its {rows} rows are not the {} from before.", before.rows)?;
        return Err(format!("view `{}` differs from what it was before; what it was is kept", V::NAME).into());
    }
    db.rebuild::<V>().drop_kept().await?;
    Ok(())
}

/// What a view holds, in little space: equal contents are equal rows, in all likelihood.
#[derive(Debug, PartialEq)]
struct Contents {
    /// Up to where the log was folded.
    events: u64,
    rows: u64,
    digest: u64,
}

impl Contents {
    async fn of<V: View>(db: &Program) -> Result<Contents, Box<dyn Error>> {
        loop {
            let before = head(db).await?;
            let (mut rows, mut digest, mut written) = (0, DefaultHasher::new(), Ok(()));
            let everything = || db.view::<V>().rows().at_least(before.clone());
            each_row(everything, |row| {
                rows += 1;
                row.key.to_key().hash(&mut digest);
                match serde_json::to_vec(&row.value) {
                    Ok(value) => value.hash(&mut digest),
                    Err(error) => written = Err(error),
                }
            })
            .await?;
            written?;
            // Rows that were read while the log went on are of no one moment.
            if head(db).await? == before {
                return Ok(Contents { events: before.position(Partition(0)).get(), rows, digest: digest.finish() });
            }
        }
    }
}
