//! Before a switch: some rows of the new generation are folded again from the log and compared.

use std::collections::BTreeMap;
use std::ops::Bound;

use annals_core::{Generation, History, Partition, Position, ReadLog, ReadRows, RowsBy};
use bytes::Bytes;

use crate::context::ViewContext;
use crate::rows::{encode, refold};
use crate::step::Step;
use crate::view::View;
use annals_runner::{DeadLetterPages, Skips, Verified, WorkError};

/// Folds a sample of rows again, from where the past of the generation begins, and compares them
/// with what it has. Keys that wait for a person are left out, and so is a view over a log of
/// several partitions, whose interleaving nobody recorded.
pub(crate) async fn sampled<V: View>(
    context: &ViewContext,
    generation: &Generation,
) -> Result<Verified, WorkError> {
    let wanted = context.options.verified_keys;
    if wanted == 0 || context.db.store().partitions() > 1 {
        return Ok(Verified::Equal);
    }
    let sample = sample(context, generation, wanted).await?;
    if sample.is_empty() {
        return Ok(Verified::Equal);
    }
    let keys: Vec<_> = sample.keys().cloned().collect();
    // The slots go on while the log is read, so the rows are taken last, and what came in between
    // is folded too.
    let mut replayed: BTreeMap<String, Option<Bytes>> =
        keys.iter().map(|key| (key.clone(), None)).collect();
    let mut position = Position::START;
    // What the rows were where the past of the generation begins is what it was given, or what a
    // person chose to forget.
    if generation.spec.history != History::None && generation.history_since > Position::START {
        position = generation.history_since;
        let past = context
            .views
            .read_past(generation.id, &keys, position)
            .await?;
        replayed.extend(
            past.into_iter()
                .map(|row| (row.key, row.base.and_then(|base| base.value))),
        );
    }
    for round in 0..ROUNDS {
        let read = ReadRows::of(generation.id, RowsBy::Keys(keys.clone())).limit(keys.len());
        let (rows, up_to) = if round == 0 {
            (None, context.db.store().head(Partition(0)).await?.visible)
        } else {
            let page = context.views.read_rows(read).await?;
            let reached = page
                .checkpoints
                .iter()
                .map(|of| of.position)
                .min()
                .unwrap_or_default();
            let level = page.checkpoints.iter().all(|of| of.position == reached);
            (level.then_some(page.rows), reached)
        };
        fold_to::<V>(context, &mut replayed, &mut position, up_to).await?;
        let Some(rows) = rows.filter(|_| position == up_to) else {
            continue;
        };
        let mut found: BTreeMap<_, _> = rows.into_iter().map(|row| (row.key, row.value)).collect();
        let differs = replayed
            .iter()
            .find(|(key, value)| found.remove(*key) != **value);
        return Ok(match differs {
            Some((key, _)) => Verified::Differs {
                what: format!("the row `{key}` differs from a replay of its events"),
            },
            None => Verified::Equal,
        });
    }
    // The slots never stood level while the log was this busy: nothing was found to be wrong.
    tracing::info!(
        view = V::NAME,
        "a generation was switched to without a sample, because its slots never stood level"
    );
    Ok(Verified::Equal)
}

/// How often the rows are taken until all slots stand at one place.
const ROUNDS: usize = 50;

/// Keys from all over the view, at most so many, without those that are set aside.
async fn sample(
    context: &ViewContext,
    generation: &Generation,
    wanted: usize,
) -> Result<BTreeMap<String, Bytes>, WorkError> {
    let mut sample = BTreeMap::new();
    let range = RowsBy::KeyRange(Bound::Unbounded, Bound::Unbounded);
    let read = ReadRows::of(generation.id, range);
    for page in [
        context.views.read_rows(read.clone().limit(wanted)).await?,
        context
            .views
            .read_rows(read.backward().limit(wanted))
            .await?,
    ] {
        let half = wanted.div_ceil(2);
        sample.extend(
            page.rows
                .into_iter()
                .take(half)
                .map(|row| (row.key, row.value)),
        );
    }
    let mut pages = DeadLetterPages::of(&*context.views, generation.id);
    loop {
        let page = pages.next().await?;
        if page.is_empty() {
            return Ok(sample);
        }
        for dead_letters in page {
            sample.remove(&dead_letters.key);
        }
    }
}

async fn fold_to<V: View>(
    context: &ViewContext,
    replayed: &mut BTreeMap<String, Option<Bytes>>,
    position: &mut Position,
    up_to: Position,
) -> Result<(), WorkError> {
    let handlers = V::handlers();
    let skips = Skips::of(context.views.skip_decisions(V::NAME).await?);
    while *position < up_to {
        let page = context
            .db
            .store()
            .read(
                ReadLog::after(*position)
                    .up_to(up_to)
                    .filter(handlers.filter()),
            )
            .await?;
        let mut steps: Vec<Step<V>> = Vec::new();
        for record in page.events {
            steps.extend(handlers.prepare_except(&skips, record)?);
        }
        steps.retain(|step| step.keys.iter().any(|key| replayed.contains_key(key)));
        if !steps.is_empty() {
            for (key, stored) in replayed.iter_mut() {
                if steps.iter().any(|step| step.keys.contains(key)) {
                    let value = refold::<V>(key, stored.as_ref(), &steps)?;
                    *stored = value.map(|value| encode(key, &value)).transpose()?;
                }
            }
        }
        let end = page.end;
        *position = page.scanned;
        if end && *position < up_to {
            break;
        }
    }
    Ok(())
}
