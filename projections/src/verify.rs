//! Before a switch: some rows of the new generation are folded again from the log and compared.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Bound;

use annals_core::{
    Checkpoint, Generation, History, Partition, Position, ReadLog, ReadRows, RowsBy,
};
use bytes::Bytes;

use crate::context::ViewContext;
use crate::fold::{encode, first_difference, refold};
use crate::keyed::KeyedRows;
use crate::view::View;
use crate::view::step::Step;
use annals_runner::{DeadLetterPages, Skips, Verified, WorkError};

/// Folds a sample of rows again, from where the past of the generation begins, and compares them
/// with what it has. Keys in dead letters are not compared, and neither are keys whose events come
/// from several partitions: in which order those were folded was not recorded.
pub(crate) async fn sampled<V: View>(
    context: &ViewContext,
    generation: &Generation,
) -> Result<Verified, WorkError> {
    let wanted = context.options.verified_keys;
    if wanted == 0 {
        return Ok(Verified::Equal);
    }
    let sample = sample::<V>(context, generation, wanted).await?;
    if sample.is_empty() {
        return Ok(Verified::Equal);
    }
    let keys: Vec<_> = sample.into_iter().collect();
    // The slots go on while the log is read, so the rows are taken last, and what came in between
    // is folded too.
    let mut replay = Replay {
        rows: keys.iter().map(|key| (key.clone(), None)).collect(),
        touched: BTreeMap::new(),
    };
    let partitions = || (0..context.log().partitions()).map(Partition);
    let mut positions: BTreeMap<_, _> = partitions().map(|of| (of, Position::START)).collect();
    // What the rows were where the past of the generation begins was copied, or was forgotten by
    // choice. There is one partition then.
    let since = folded_since(generation);
    if since > Position::START {
        positions.insert(Partition(0), since);
        let past = context.views.read_past(generation.id, &keys, since).await?;
        replay.rows.extend(
            past.into_iter()
                .map(|row| (row.key, row.base.and_then(|base| base.value))),
        );
    }
    for round in 0..ROUNDS {
        let (rows, up_to) = if round == 0 {
            let mut heads = BTreeMap::new();
            for partition in partitions() {
                heads.insert(partition, context.log().head(partition).await?.visible);
            }
            (None, heads)
        } else {
            let found = KeyedRows::read(&*context.views, generation.id, &keys).await?;
            let Some(checkpoints) = found.checkpoints else {
                continue;
            };
            let mut level = true;
            let mut reached = BTreeMap::new();
            for partition in partitions() {
                let of = |of: &&Checkpoint| of.partition == partition;
                let positions = || checkpoints.iter().filter(of).map(|of| of.position);
                let lowest = positions().min().unwrap_or_default();
                level &= positions().all(|position| position == lowest);
                reached.insert(partition, lowest);
            }
            (level.then_some(found.rows), reached)
        };
        for (partition, up_to) in &up_to {
            let position = positions.entry(*partition).or_default();
            fold_to::<V>(context, &mut replay, *partition, position, *up_to).await?;
        }
        let Some(rows) = rows.filter(|_| positions == up_to) else {
            continue;
        };
        return Ok(replay.compared(rows));
    }
    // The slots were never at one position while the log was this busy: nothing was found wrong.
    Ok(Verified::NotPossible {
        why: "its slots were never at one position while the log was this busy".to_owned(),
    })
}

/// The rows of a sample, folded again.
struct Replay {
    rows: BTreeMap<String, Option<Bytes>>,
    /// The partitions whose events have changed a key.
    touched: BTreeMap<String, BTreeSet<Partition>>,
}

impl Replay {
    fn compared(&self, mut found: HashMap<String, Bytes>) -> Verified {
        let mut compared = 0;
        for (key, replayed) in &self.rows {
            if self.touched.get(key).is_some_and(|of| of.len() > 1) {
                continue;
            }
            compared += 1;
            if let Some(difference) = difference(found.remove(key), replayed.as_ref()) {
                return Verified::Differs {
                    what: format!(
                        "row `{}` differs from a replay of its events: {difference}",
                        key.escape_debug()
                    ),
                };
            }
        }
        if compared > 0 {
            return Verified::Equal;
        }
        Verified::NotPossible {
            why: "the events of each sampled key come from several partitions, whose order was \
                  not recorded"
                .to_owned(),
        }
    }
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
    let mut lengths = Vec::new();
    for partition in (0..context.log().partitions()).map(Partition) {
        let head = context.log().head(partition).await?.visible;
        match head.get().saturating_sub(since.get()) {
            0 => {}
            length => lengths.push((partition, length)),
        }
    }
    for round in 0..wanted * 4 {
        if sample.len() >= wanted || lengths.is_empty() {
            break;
        }
        let (partition, length) = lengths[round % lengths.len()];
        let at = Position::new(since.get() + random() % length);
        let read = ReadLog::after(at)
            .partition(partition)
            .filter(handlers.filter())
            .limit(1);
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

/// Folds what a partition has up to a position onto the rows.
async fn fold_to<V: View>(
    context: &ViewContext,
    replay: &mut Replay,
    partition: Partition,
    position: &mut Position,
    up_to: Position,
) -> Result<(), WorkError> {
    let handlers = V::handlers();
    let skips = Skips::of(context.views.skip_decisions(V::NAME).await?);
    while *position < up_to {
        let read = ReadLog::after(*position)
            .partition(partition)
            .up_to(up_to)
            .filter(handlers.filter());
        let page = context.log().read(read).await?;
        handlers
            .check_page(&**context.log(), &context.options, &page.removed, true)
            .await?;
        let mut steps: Vec<Step<V>> = Vec::new();
        for record in page.events {
            steps.extend(handlers.prepare_except(&skips, record)?);
        }
        steps.retain(|step| step.keys.iter().any(|key| replay.rows.contains_key(key)));
        for (key, stored) in &mut replay.rows {
            if !steps.iter().any(|step| step.keys.contains(key)) {
                continue;
            }
            replay
                .touched
                .entry(key.clone())
                .or_default()
                .insert(partition);
            let value = refold::<V>(key, stored.as_ref(), &steps)?;
            *stored = value.map(|value| encode(key, &value)).transpose()?;
        }
        let end = page.end;
        *position = page.scanned;
        if end && *position < up_to {
            break;
        }
    }
    Ok(())
}
