//! The read models of the bank: registered, brought up to the log, rebuilt.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use annals::prelude::*;
use annals::projections::{
    Options, RebuildError, RowEntry, RowsOf, StartError, Status, ViewError, ViewKey,
};
use annals::read_model::ViewStore;
use annals::{Partition, StoreError};
use indicatif::ProgressBar;

use crate::balances::{BalanceChange, CurrentChange};
use crate::statements::MonthlyStatement;
use crate::volume::DailyVolume;

/// Starts the read models and waits until they have seen everything that is in the log now. The
/// first time on a file they are built; later only what was recorded since is folded.
///
/// The owner of a program stops it in the end: then the next one need not wait until its leases run
/// out.
pub(crate) async fn up(
    db: Annals,
    views: Option<Arc<dyn ViewStore>>,
    bar: &ProgressBar,
) -> Result<Program, StartError> {
    let bar = bar.clone();
    let has_one_past = has_one_past(&db);
    let mut setup = db
        .with(MonthlyStatement::projection())
        .with(DailyVolume::projection());
    setup = if has_one_past {
        setup.with(BalanceChange::projection())
    } else {
        setup.with(CurrentChange::projection())
    };
    if let Some(views) = views {
        setup = setup.views_in(views);
    }
    setup
        .caught_up()
        .on_progress(move |all| show(all, &bar))
        .start()
        .await
}

/// Whether all events are in one order, so that a view of them all has a history. A log of several
/// partitions has one order for each account, and none for all of them.
pub(crate) fn has_one_past(db: &Annals) -> bool {
    db.store().partitions() == 1
}

/// The slowest one is what all wait for.
fn show(all: &[Status], bar: &ProgressBar) {
    let Some(slowest) = all.iter().max_by_key(|status| status.lag_events()) else {
        return;
    };
    let heads = slowest.slots.iter().flat_map(|slot| slot.head.values());
    let total = heads.map(|head| head.get()).max().unwrap_or_default();
    bar.set_length(total);
    bar.set_position(total - slowest.lag_events().min(total));
    bar.set_message(slowest.to_string());
}

/// Everything that is in the log now: what a question asks a read model to have seen.
pub(crate) async fn head(db: &Annals) -> Result<Token, StoreError> {
    let mut token = Token::new(db.store().id());
    for partition in (0..db.store().partitions()).map(Partition) {
        let head = db.store().head(partition).await?.visible;
        token = token.with(partition, head);
    }
    Ok(token)
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

/// Rebuilds every read model, one after another, and says what came of it.
pub(crate) async fn rebuild(
    db: &Program,
    bar: &ProgressBar,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    if has_one_past(db) {
        rebuild_one::<BalanceChange>(db, bar, out).await?;
    } else {
        rebuild_one::<CurrentChange>(db, bar, out).await?;
    }
    rebuild_one::<MonthlyStatement>(db, bar, out).await?;
    rebuild_one::<DailyVolume>(db, bar, out).await
}

/// The one that serves goes on serving until the new one is complete. Then the rows of both are
/// compared, and the old one goes.
async fn rebuild_one<V: View>(
    db: &Program,
    bar: &ProgressBar,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let before = Contents::of::<V>(db).await?;
    bar.reset();
    bar.set_message("");
    bar.set_prefix(format!("{}: ", V::NAME));
    let started = Instant::now();
    let building = match db.rebuild::<V>().begin().await {
        // Another process has just begun the same: all wait for one rebuild.
        Err(RebuildError::AlreadyBuilding(view)) => db
            .rebuild::<V>()
            .under_way()
            .await?
            .ok_or(RebuildError::AlreadyBuilding(view))?,
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

    let events = after.events;
    let rows = after.rows;
    let rate = events as f64 / seconds.max(0.001);
    write!(
        out,
        "{}: {events} events folded again in {seconds:.2} s ({rate:.0} events/s). ",
        V::NAME
    )?;
    let sample = rows.min(Options::default().verified_keys as u64);
    write!(
        out,
        "Before the switch {sample} rows were folded once more and were the same; "
    )?;
    if before.events != events {
        writeln!(
            out,
            "the log went on meanwhile, so the {rows} rows were not compared with those before."
        )?;
    } else if before == after {
        writeln!(out, "after it all {rows} rows are as they were.")?;
    } else {
        writeln!(
            out,
            "but its {rows} rows are not the {} from before.",
            before.rows
        )?;
        return Err(format!(
            "view `{}` differs from what it was before; what it was is kept",
            V::NAME
        )
        .into());
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
            let mut rows = 0;
            let mut digest = DefaultHasher::new();
            let mut written = Ok(());
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
                return Ok(Contents {
                    events: (0..db.store().partitions())
                        .map(|partition| before.position(Partition(partition)).get())
                        .sum(),
                    rows,
                    digest: digest.finish(),
                });
            }
        }
    }
}
