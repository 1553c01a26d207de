//! Before a switch: some rows of the new generation are folded again from the log and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Bound;

use annals_core::{Generation, History, Partition, Position, ReadLog, ReadRows, RowsBy};
use bytes::Bytes;

use crate::context::ViewContext;
use crate::fold::{encode, first_difference, refold};
use crate::view::View;
use crate::view::step::Step;
use annals_runner::{DeadLetterPages, Skips, Verified, WorkError};

/// Folds a sample of rows again, from where the past of the generation begins, and compares them
/// with what it has. Keys in dead letters are not compared, and neither is a view over a log of
/// several partitions, whose interleaving is not recorded.
pub(crate) async fn sampled<V: View>(
    context: &ViewContext,
    generation: &Generation,
) -> Result<Verified, WorkError> {
    let wanted = context.options.verified_keys;
    if wanted == 0 || context.db.store().partitions() > 1 {
        return Ok(Verified::Equal);
    }
    let sample = sample::<V>(context, generation, wanted).await?;
    if sample.is_empty() {
        return Ok(Verified::Equal);
    }
    let keys: Vec<_> = sample.into_iter().collect();
    // The slots go on while the log is read, so the rows are taken last, and what came in between
    // is folded too.
    let mut replayed: BTreeMap<String, Option<Bytes>> =
        keys.iter().map(|key| (key.clone(), None)).collect();
    let mut position = Position::START;
    // What the rows were where the past of the generation begins was copied, or was forgotten by
    // choice.
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
        for (key, replayed) in &replayed {
            if let Some(difference) = difference(found.remove(key), replayed.as_ref()) {
                return Ok(Verified::Differs {
                    what: format!(
                        "row `{}` differs from a replay of its events: {difference}",
                        key.escape_debug()
                    ),
                });
            }
        }
        return Ok(Verified::Equal);
    }
    // The slots were never at one position while the log was this busy: nothing was found wrong.
    tracing::info!(
        view = V::NAME,
        "a generation was switched to without a sample: its slots were never at one position"
    );
    Ok(Verified::Equal)
}

/// How often the rows are taken until all slots are at one position.
const ROUNDS: usize = 50;

/// Keys from all over the view, at most so many, without those in dead letters: the first and the
/// last one, and those of events from all over the log.
async fn sample<V: View>(
    context: &ViewContext,
    generation: &Generation,
    wanted: usize,
) -> Result<BTreeSet<String>, WorkError> {
    let mut sample = BTreeSet::new();
    let range = RowsBy::KeyRange(Bound::Unbounded, Bound::Unbounded);
    let read = ReadRows::of(generation.id, range).limit(1);
    let ends = [read.clone(), read.backward()];
    for end in ends.into_iter().take(wanted) {
        let page = context.views.read_rows(end).await?;
        sample.extend(page.rows.into_iter().take(1).map(|row| row.key));
    }
    let handlers = V::handlers();
    let skips = Skips::of(context.views.skip_decisions(V::NAME).await?);
    let since = folded_since(generation);
    let head = context.log().head(Partition(0)).await?.visible;
    let length = head.get().saturating_sub(since.get());
    for _ in 0..wanted * 4 {
        if sample.len() >= wanted || length == 0 {
            break;
        }
        let at = Position::new(since.get() + random() % length);
        let read = ReadLog::after(at).filter(handlers.filter()).limit(1);
        for record in context.log().read(read).await?.events {
            let steps = handlers.prepare_except(&skips, record)?;
            let keys: Vec<_> = steps.into_iter().flat_map(|step| step.keys).collect();
            if !keys.is_empty() {
                let index = random() as usize % keys.len();
                sample.extend(keys.into_iter().nth(index));
            }
        }
    }
    let mut pages = DeadLetterPages::of(&*context.views, generation.id);
    loop {
        let page = pages.next().await?;
        if page.is_empty() {
            return Ok(sample);
        }
        for letter in page {
            sample.remove(&letter.key);
        }
    }
}

/// Where the events begin that the generation was folded from.
fn folded_since(generation: &Generation) -> Position {
    match generation.spec.history {
        History::None => Position::START,
        _ => generation.history_since,
    }
}

/// A fresh `RandomState` is seeded at random; no better dice are needed here.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// In what a row differs from its replay.
fn difference(found: Option<Bytes>, replayed: Option<&Bytes>) -> Option<String> {
    match (found, replayed) {
        (None, None) => None,
        (Some(_), None) => Some("it exists, and a replay gives none".into()),
        (None, Some(_)) => Some("it does not exist, and a replay gives one".into()),
        (Some(found), Some(replayed)) => first_difference(&found, replayed),
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
