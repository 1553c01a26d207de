//! Before a switch: some rows of the new generation are folded again from the log and compared.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Bound;

use annals_core::{
    Checkpoint, Filter, Generation, History, Partition, Position, ReadLog, ReadRows, RecordedEvent,
    Removed, RowsBy,
};
use bytes::Bytes;

use crate::context::ViewContext;
use crate::fold::{Refolded, first_difference};
use crate::keyed::KeyedRows;
use crate::view::step::{Step, StepError};
use crate::view::{Handlers, View};
use annals_runner::{BoxFuture, DeadLetterPages, Skips, Verified, WorkError, slot_of};

/// What a check asks of the fold of a view, whose type is forgotten: the check is compiled once.
trait CheckedFold: Send + Sync {
    /// The events that it is made of.
    fn reads(&self) -> Filter;

    /// The keys of the rows that an event changes.
    fn keys(&self, skips: &Skips, record: RecordedEvent) -> Result<Vec<String>, StepError>;

    /// Stops where removed events are needed.
    fn check_removed<'a>(
        &'a self,
        context: &'a ViewContext,
        removed: &'a [Removed],
    ) -> BoxFuture<'a, Result<(), WorkError>>;

    /// Folds events of a partition onto the rows, for each key only up to its end.
    fn fold_onto(
        &self,
        replay: &mut Replay,
        events: Vec<RecordedEvent>,
        skips: &Skips,
        part: &Part<'_>,
    ) -> Result<(), WorkError>;
}

/// What is folded of a partition.
struct Part<'a> {
    partition: Partition,
    up_to: Position,
    /// Up to where for each key, where that is not the same for all.
    ends: Option<&'a HashMap<String, Position>>,
}

impl Part<'_> {
    fn end_of(&self, key: &str) -> Position {
        match self.ends {
            Some(ends) => ends.get(key).copied().unwrap_or_default(),
            None => self.up_to,
        }
    }
}

impl<V: View> CheckedFold for Handlers<V> {
    fn reads(&self) -> Filter {
        self.filter()
    }

    fn keys(&self, skips: &Skips, record: RecordedEvent) -> Result<Vec<String>, StepError> {
        let steps = self.prepare_except(skips, record)?;
        Ok(steps.into_iter().flat_map(|step| step.keys).collect())
    }

    fn check_removed<'a>(
        &'a self,
        context: &'a ViewContext,
        removed: &'a [Removed],
    ) -> BoxFuture<'a, Result<(), WorkError>> {
        self.check_page(&**context.log(), &context.options, removed, true)
    }

    fn fold_onto(
        &self,
        replay: &mut Replay,
        events: Vec<RecordedEvent>,
        skips: &Skips,
        part: &Part<'_>,
    ) -> Result<(), WorkError> {
        let mut steps: Vec<Step<V>> = Vec::new();
        for record in events {
            steps.extend(self.prepare_except(skips, record)?);
        }
        steps.retain(|step| step.keys.iter().any(|key| replay.rows.contains_key(key)));
        for (key, row) in &mut replay.rows {
            let end = part.end_of(key);
            let begin = *replay.begun_before.get(key).unwrap_or(&replay.since);
            let number_of = |to: Position| steps.partition_point(|of| of.record().position <= to);
            let own = number_of(begin)..number_of(end.max(begin));
            if row.take::<V>(key, &steps[own])? {
                let touched = replay.touched.entry(key.clone());
                touched.or_default().insert(part.partition);
            }
        }
        Ok(())
    }
}

/// Folds a sample of rows again, from where the past of the generation begins, and compares them
/// with what it has. Keys in dead letters are not compared, and neither are keys whose events come
/// from several partitions: in which order those were folded was not recorded. That is said,
/// whatever the others are.
pub(crate) async fn sampled<V: View>(
    context: &ViewContext,
    generation: &Generation,
) -> Result<Verified, WorkError> {
    let fold = V::handlers();
    let view = CheckedView {
        context,
        name: V::NAME,
        fold: &fold,
    };
    view.compared_with(generation).await
}

/// A view that is checked.
#[derive(Clone, Copy)]
struct CheckedView<'a> {
    context: &'a ViewContext,
    name: &'static str,
    fold: &'a dyn CheckedFold,
}

impl<'a> CheckedView<'a> {
    /// Boxed here, so that it is compiled once and not for each view.
    fn compared_with(
        self,
        generation: &'a Generation,
    ) -> BoxFuture<'a, Result<Verified, WorkError>> {
        Box::pin(compared(self, generation))
    }
}

async fn compared(view: CheckedView<'_>, generation: &Generation) -> Result<Verified, WorkError> {
    let context = view.context;
    let wanted = context.options.verified_keys;
    if wanted == 0 {
        return Ok(Verified::Equal);
    }
    let sample = sample(view, generation, wanted).await?;
    if sample.is_empty() {
        return Ok(Verified::Equal);
    }
    let keys: Vec<_> = sample.into_iter().collect();
    // What the rows were where the past of the generation begins was copied, or was forgotten by
    // choice. There is one partition then.
    let since = folded_since(generation);
    let mut replay = Replay {
        rows: keys
            .iter()
            .map(|key| (key.clone(), Refolded::from(None)))
            .collect(),
        since,
        begun_before: BTreeMap::new(),
        touched: BTreeMap::new(),
    };
    let partitions = || (0..context.log().partitions()).map(Partition);
    let mut positions: BTreeMap<_, _> = partitions().map(|of| (of, Position::START)).collect();
    if since > Position::START {
        let past = context.views.read_past(generation.id, &keys, since).await?;
        for row in past {
            if let Some(after) = row.refold_after {
                replay.begun_before.insert(row.key.clone(), after);
            }
            let stored = row.base.and_then(|base| base.value);
            replay.rows.insert(row.key, Refolded::from(stored));
        }
        let begun_before = replay.begun_before.values().copied();
        positions.insert(Partition(0), begun_before.min().unwrap_or(since));
    }
    // The log up to the slowest slot is read first, which takes long. Slots go on meanwhile, each
    // by itself, so each row is compared where its own slot was when the row was taken.
    let checkpoints = context.views.checkpoints(generation.id).await?;
    let slots = generation.spec.slots;
    for (partition, position) in &mut positions {
        let reached = (0..slots).map(|slot| reached(&checkpoints, slot, *partition));
        let slowest = reached.min().unwrap_or_default();
        let part = Part {
            partition: *partition,
            up_to: slowest,
            ends: None,
        };
        fold_to(view, &mut replay, &part, position).await?;
    }
    let mut found = HashMap::new();
    let mut ends: BTreeMap<Partition, HashMap<String, Position>> = BTreeMap::new();
    for key in keys {
        let (row, checkpoints) = KeyedRows::one(&*context.views, generation.id, &key).await?;
        found.extend(row.map(|row| (key.clone(), row)));
        let slot = slot_of(&key, slots);
        for partition in partitions() {
            let end = reached(&checkpoints, slot, partition);
            ends.entry(partition).or_default().insert(key.clone(), end);
        }
    }
    for (partition, ends) in &ends {
        let furthest = ends.values().copied().max().unwrap_or_default();
        let position = positions.entry(*partition).or_default();
        let part = Part {
            partition: *partition,
            up_to: furthest,
            ends: Some(ends),
        };
        fold_to(view, &mut replay, &part, position).await?;
    }
    Ok(replay.compared(&found))
}

/// How far a slot has come in a partition.
pub(crate) fn reached(checkpoints: &[Checkpoint], slot: u16, partition: Partition) -> Position {
    let mut of = checkpoints.iter();
    let of = of.find(|of| (of.slot, of.partition) == (slot, partition));
    of.map_or(Position::START, |of| of.position)
}

/// The rows of a sample, folded again. What becomes a dead letter meanwhile ends its row here, as
/// it does there.
struct Replay {
    rows: BTreeMap<String, Refolded>,
    /// Where the rows begin.
    since: Position,
    /// Keys whose rows begin earlier: no version of theirs ends there, because several events were
    /// folded into one.
    begun_before: BTreeMap<String, Position>,
    /// The partitions whose events have changed a key.
    touched: BTreeMap<String, BTreeSet<Partition>>,
}

impl Replay {
    /// What was removed of the events after the rows begin. Rows that begin earlier and may lack
    /// what was removed before that are not compared.
    fn removed_since(&mut self, mut removed: Vec<Removed>) -> Vec<Removed> {
        let since = self.since;
        if removed.iter().any(|of| of.first <= since) {
            for key in std::mem::take(&mut self.begun_before).keys() {
                self.rows.remove(key);
            }
        }
        removed.retain(|of| of.last > since);
        removed
    }

    fn compared(&self, found: &HashMap<String, Bytes>) -> Verified {
        let mut unordered = 0;
        for (key, replayed) in &self.rows {
            if self.touched.get(key).is_some_and(|of| of.len() > 1) {
                unordered += 1;
                continue;
            }
            if let Some(difference) = difference(found.get(key), replayed.stored()) {
                return Verified::Differs {
                    what: format!(
                        "row `{}` differs from a replay of its events: {difference}",
                        key.escape_debug()
                    ),
                };
            }
        }
        if unordered == 0 {
            return Verified::Equal;
        }
        let sampled = self.rows.len();
        Verified::NotPossible {
            why: format!(
                "the events of {unordered} of {sampled} sampled keys come from several \
                 partitions, whose order was not recorded"
            ),
        }
    }
}

/// Keys from all over the view, at most so many, without those in dead letters: the first and the
/// last one, and those of events from all over the log.
async fn sample(
    view: CheckedView<'_>,
    generation: &Generation,
    wanted: usize,
) -> Result<BTreeSet<String>, WorkError> {
    let context = view.context;
    let mut sample = BTreeSet::new();
    let range = RowsBy::KeyRange(Bound::Unbounded, Bound::Unbounded);
    let read = ReadRows::of(generation.id, range).limit(1);
    let ends = [read.clone(), read.backward()];
    for end in ends.into_iter().take(wanted) {
        let page = context.views.read_rows(end).await?;
        sample.extend(page.rows.into_iter().take(1).map(|row| row.key));
    }
    let skips = Skips::of(context.views.skip_decisions(view.name).await?);
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
            .filter(view.fold.reads())
            .limit(1);
        for record in context.log().read(read).await?.events {
            let keys = view.fold.keys(&skips, record)?;
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
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// In what a row differs from its replay.
pub(crate) fn difference(found: Option<&Bytes>, replayed: Option<&Bytes>) -> Option<String> {
    match (found, replayed) {
        (None, None) => None,
        (Some(_), None) => Some("it exists, and a replay gives none".into()),
        (None, Some(_)) => Some("it does not exist, and a replay gives one".into()),
        (Some(found), Some(replayed)) => first_difference(found, replayed),
    }
}

/// Folds what a partition has after a position onto the rows.
async fn fold_to(
    view: CheckedView<'_>,
    replay: &mut Replay,
    part: &Part<'_>,
    position: &mut Position,
) -> Result<(), WorkError> {
    let context = view.context;
    let skips = Skips::of(context.views.skip_decisions(view.name).await?);
    while *position < part.up_to {
        let read = ReadLog::after(*position)
            .partition(part.partition)
            .up_to(part.up_to)
            .filter(view.fold.reads());
        let page = context.log().read(read).await?;
        let removed = replay.removed_since(page.removed);
        view.fold.check_removed(context, &removed).await?;
        view.fold.fold_onto(replay, page.events, &skips, part)?;
        *position = page.scanned;
        if page.end && *position < part.up_to {
            break;
        }
    }
    Ok(())
}
