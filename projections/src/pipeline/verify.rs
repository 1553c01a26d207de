//! Before a switch: some keys are run again from the log, alone, and their rows compared with those
//! of the new generation.
//!
//! The clock follows all records, whatever their key, so what is alone gives what it gave among all
//! others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::{Generation, LogPage, Partition, Position, ReadLog};
use annals_runner::{Skips, Verified, WorkError, slot_of};
use bytes::Bytes;

use super::blueprint::Blueprint;
use super::dead::{OUTPUT, shown};
use super::divide::DivideBy;
use super::machine::{Machine, OutRow, Saving, Taken};
use super::output::END;
use super::share::Share;
use crate::context::ViewContext;
use crate::keyed::KeyedRows;
use crate::verify::{difference, random, reached};

/// Rows that are compared at most.
const ROWS: usize = 2_000;
/// Events read at once.
const PAGE_EVENTS: usize = 4_096;
/// Rows that are taken at once.
const ROWS_READ: usize = 100;

/// Runs a sample of keys again and compares their rows.
pub(crate) async fn sampled(
    blueprint: &Blueprint,
    context: &ViewContext,
    generation: &Generation,
) -> Result<Verified, WorkError> {
    let wanted = context.options.verified_keys;
    let spec = &generation.spec;
    if wanted == 0 {
        return Ok(Verified::Equal);
    }
    let not = |why: &str| Ok(Verified::NotPossible { why: why.into() });
    if blueprint.needs_one_slot().is_some() {
        return not("its stages bring several keys together, so none can be run alone");
    }
    if spec.partitions > 1 && !spec.is_by_partition() {
        return not("in which order records of several partitions came was not recorded");
    }
    // With a slot for each partition, one partition is verified.
    let partition = Partition((random() % u64::from(spec.partitions.max(1))) as u32);
    let keys = sample(blueprint, context, partition, wanted).await?;
    if keys.is_empty() {
        return Ok(Verified::Equal);
    }
    let mut by_slot: BTreeMap<u16, BTreeSet<String>> = BTreeMap::new();
    for key in keys {
        let slot = match spec.is_by_partition() {
            true => partition.0 as u16,
            false => slot_of(&key, spec.slots),
        };
        by_slot.entry(slot).or_default().insert(key);
    }
    let reading = Reading {
        blueprint,
        context,
        partition,
        share: match spec.is_by_partition() {
            true => Share::Partition(partition),
            false => Share::everything(1),
        },
        skips: Skips::of(context.views.skip_decisions(&spec.view).await?),
    };
    let runs = by_slot.into_iter();
    let mut runs: Vec<_> = runs.map(|(slot, keys)| Again::new(slot, keys)).collect();
    // The log up to the slowest slot is read first, and once, which takes long. Slots go on
    // meanwhile, each by itself, so rows are compared where their own slot was when they were
    // taken.
    let checkpoints = context.views.checkpoints(generation.id).await?;
    let slots = runs.iter();
    let slots = slots.map(|of| reached(&checkpoints, of.slot, partition));
    let slowest = slots.min().unwrap_or_default();
    reading.all_to(&mut runs, slowest).await?;
    for again in &mut runs {
        let differs = again.compared_with(&reading, generation).await?;
        if let Some(what) = differs {
            return Ok(Verified::Differs { what });
        }
    }
    Ok(Verified::Equal)
}

/// Keys of events from all over a partition, as texts.
async fn sample(
    blueprint: &Blueprint,
    context: &ViewContext,
    partition: Partition,
    wanted: usize,
) -> Result<BTreeSet<String>, WorkError> {
    let mut keys = BTreeSet::new();
    let length = context.log().head(partition).await?.visible.get();
    for _ in 0..wanted * 4 {
        if keys.len() >= wanted || length == 0 {
            break;
        }
        let read = ReadLog::after(Position::new(random() % length))
            .partition(partition)
            .filter(blueprint.filter())
            .limit(1);
        let page = context.log().read(read).await?;
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let names = move |key: &str| {
            let mut told = tell.lock().unwrap_or_else(PoisonError::into_inner);
            told.push(key.to_owned());
            false
        };
        blueprint.prepare(page, partition, DivideBy::Chosen(Arc::new(names)));
        let told = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
        if !told.is_empty() {
            let index = random() as usize % told.len();
            keys.extend(told.into_iter().nth(index));
        }
    }
    Ok(keys)
}

/// What the log is read with.
struct Reading<'a> {
    blueprint: &'a Blueprint,
    context: &'a ViewContext,
    partition: Partition,
    share: Share,
    skips: Skips,
}

/// Some keys of one slot, run again.
struct Again {
    slot: u16,
    keys: Arc<BTreeSet<String>>,
    machine: Option<Machine>,
    position: Position,
    /// The rows that came out, as far as they are compared.
    rows: BTreeMap<String, Option<Bytes>>,
}

impl Reading<'_> {
    /// Runs all of them, which are at one position, up to another.
    async fn all_to(&self, runs: &mut [Again], to: Position) -> Result<(), WorkError> {
        while let Some(position) = runs.first().map(|of| of.position)
            && position < to
        {
            let read = ReadLog::after(position)
                .partition(self.partition)
                .up_to(to)
                .filter(self.blueprint.filter())
                .limit(PAGE_EVENTS);
            let page = self.context.log().read(read).await?;
            for again in &mut *runs {
                again.take(self, &page)?;
            }
            if page.end && page.scanned < to {
                break;
            }
        }
        Ok(())
    }
}

impl Again {
    fn new(slot: u16, keys: BTreeSet<String>) -> Again {
        Again {
            slot,
            keys: Arc::new(keys),
            machine: None,
            position: Position::START,
            rows: BTreeMap::new(),
        }
    }

    fn take(&mut self, reading: &Reading<'_>, page: &LogPage) -> Result<(), WorkError> {
        let blueprint = reading.blueprint;
        let partition = reading.partition;
        let rows = loop {
            let keys = Arc::clone(&self.keys);
            let chosen = DivideBy::Chosen(Arc::new(move |key: &str| keys.contains(key)));
            let prepared = blueprint.prepare(page.clone(), partition, chosen);
            let machine = self
                .machine
                .get_or_insert_with(|| blueprint.machine(reading.share));
            let mut rows = Vec::new();
            let skips = &reading.skips;
            let redo = match machine.take(&prepared, self.position, skips, &mut rows)? {
                Taken::Whole => match machine.save()? {
                    Saving::Writes(_) => break rows,
                    Saving::Redo(redo) => redo,
                },
                Taken::Stuck(stuck) => {
                    let of = reading.context.log().partitions();
                    let why = blueprint.stuck(partition, of, &stuck);
                    return Err(WorkError::Stopped(why));
                }
                Taken::Redo(redo) => redo,
            };
            machine.go_back(blueprint.machine(reading.share), redo)?;
        };
        if let Some(machine) = &mut self.machine {
            machine.saves_at_once();
            machine.take_emitted();
        }
        for OutRow { key, value, .. } in rows {
            // Dead letters are told of by one slot, and are no rows of a key.
            let is_dead = key.split(END).next() == Some(OUTPUT);
            if !is_dead && (self.rows.len() < ROWS || self.rows.contains_key(&key)) {
                self.rows.insert(key, value);
            }
        }
        self.position = page.scanned;
        Ok(())
    }

    /// In what the rows that came out so far differ from those of the generation.
    async fn compared_with(
        &mut self,
        reading: &Reading<'_>,
        generation: &Generation,
    ) -> Result<Option<String>, WorkError> {
        let keys: Vec<String> = self.rows.keys().cloned().collect();
        let mut after = 0;
        while after < keys.len() {
            let mut page = &keys[after..keys.len().min(after + ROWS_READ)];
            let views = &*reading.context.views;
            let found = KeyedRows::read(views, generation.id, page).await?;
            let (rows, checkpoints) = match found.checkpoints {
                Some(checkpoints) => (found.rows, checkpoints),
                None => {
                    // Large rows are several pages, between which the slot went on.
                    page = &page[..1];
                    let (row, checkpoints) = KeyedRows::one(views, generation.id, &page[0]).await?;
                    let rows = row.map(|row| (page[0].clone(), row));
                    (rows.into_iter().collect(), checkpoints)
                }
            };
            let to = reached(&checkpoints, self.slot, reading.partition);
            reading.all_to(std::slice::from_mut(self), to).await?;
            let difference = page.iter().find_map(|key| self.difference(key, &rows));
            if difference.is_some() {
                return Ok(difference);
            }
            after += page.len();
        }
        Ok(None)
    }

    fn difference(&self, key: &str, found: &HashMap<String, Bytes>) -> Option<String> {
        let again = self.rows.get(key).and_then(Option::as_ref);
        let difference = difference(found.get(key), again)?;
        let (view, key) = key.split_once(END).unwrap_or(("", key));
        let key = shown(key);
        Some(format!(
            "row `{key}` of view `{view}` differs from a replay of its key alone: {difference}"
        ))
    }
}
