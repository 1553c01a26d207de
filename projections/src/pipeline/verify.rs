//! Before a switch: some keys are run again from the log, alone, and their rows compared with those
//! of the new generation.
//!
//! The clock follows all records, whatever their key, so what is alone gives what it gave among all
//! others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::{Generation, Partition, Position, ReadLog};
use annals_runner::{Skips, Verified, WorkError};
use bytes::Bytes;

use super::blueprint::Blueprint;
use super::dead::{OUTPUT, shown};
use super::divide::DivideBy;
use super::machine::{Machine, OutRow, Saving, Taken};
use super::output::END;
use super::share::Share;
use crate::context::ViewContext;
use crate::fold::first_difference;
use crate::keyed::KeyedRows;

/// Rows that are compared at most.
const ROWS: usize = 2_000;
/// Events read at once.
const PAGE_EVENTS: usize = 4_096;
/// How often the rows are taken until all slots are at one position.
const ROUNDS: usize = 50;

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
    // With a slot for each partition one of them stands for all.
    let partition = Partition((random() % u64::from(spec.partitions.max(1))) as u32);
    let keys = sample(blueprint, context, partition, wanted).await?;
    if keys.is_empty() {
        return Ok(Verified::Equal);
    }
    let mut again = Again {
        blueprint,
        context,
        partition,
        keys: Arc::new(keys),
        share: match spec.is_by_partition() {
            true => Share::Partition(partition),
            false => Share::everything(1),
        },
        machine: None,
        skips: Skips::of(context.views.skip_decisions(&spec.view).await?),
        position: Position::START,
        rows: BTreeMap::new(),
    };
    // The slots go on while the log is read, so the rows are taken last, and what came in between
    // is run too.
    let head = context.log().head(partition).await?.visible;
    again.run_to(head).await?;
    for _ in 0..ROUNDS {
        let keys: Vec<String> = again.rows.keys().cloned().collect();
        if keys.is_empty() {
            return Ok(Verified::Equal);
        }
        let found = KeyedRows::read(&*context.views, generation.id, &keys).await?;
        let Some(checkpoints) = found.checkpoints else {
            continue;
        };
        let reads = |slot: &u16| spec.reads(*slot, partition);
        let positions = (0..spec.slots).filter(reads).map(|slot| {
            let mut of = checkpoints.iter();
            let of = of.find(|of| (of.slot, of.partition) == (slot, partition));
            of.map_or(Position::START, |of| of.position)
        });
        let positions: BTreeSet<_> = positions.collect();
        let (Some(lowest), Some(highest)) = (positions.first(), positions.last()) else {
            break;
        };
        if lowest == highest && *lowest == again.position {
            return Ok(again.compared(&found.rows));
        }
        if *highest > again.position {
            again.run_to(*highest).await?;
        }
    }
    not("its slots were never at one position while the log was this busy")
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

/// Some keys, run again.
struct Again<'a> {
    blueprint: &'a Blueprint,
    context: &'a ViewContext,
    partition: Partition,
    keys: Arc<BTreeSet<String>>,
    share: Share,
    machine: Option<Machine>,
    skips: Skips,
    position: Position,
    /// The rows that came out, as far as they are compared.
    rows: BTreeMap<String, Option<Bytes>>,
}

impl Again<'_> {
    async fn run_to(&mut self, to: Position) -> Result<(), WorkError> {
        while self.position < to {
            let read = ReadLog::after(self.position)
                .partition(self.partition)
                .up_to(to)
                .filter(self.blueprint.filter())
                .limit(PAGE_EVENTS);
            let page = self.context.log().read(read).await?;
            let scanned = page.scanned;
            let end = page.end;
            let rows = loop {
                let keys = Arc::clone(&self.keys);
                let chosen = DivideBy::Chosen(Arc::new(move |key: &str| keys.contains(key)));
                let prepared = self.blueprint.prepare(page.clone(), self.partition, chosen);
                let machine = self
                    .machine
                    .get_or_insert_with(|| self.blueprint.machine(self.share));
                let mut rows = Vec::new();
                let redo = match machine.take(&prepared, self.position, &self.skips, &mut rows)? {
                    Taken::Whole => match machine.save()? {
                        Saving::Writes(_) => break rows,
                        Saving::Redo(redo) => redo,
                    },
                    Taken::Stuck(stuck) => {
                        let why = self.blueprint.stuck(self.partition, &stuck);
                        return Err(WorkError::Stopped(why));
                    }
                    Taken::Redo(redo) => redo,
                };
                machine.go_back(self.blueprint.machine(self.share), redo)?;
            };
            if let Some(machine) = &mut self.machine {
                machine.saves_at_once();
                machine.take_emitted();
            }
            self.take(rows);
            self.position = scanned;
            if end && self.position < to {
                break;
            }
        }
        Ok(())
    }

    fn take(&mut self, rows: Vec<OutRow>) {
        for OutRow { key, value, .. } in rows {
            // Dead letters are told of by one slot, and are no rows of a key.
            let is_dead = key.split(END).next() == Some(OUTPUT);
            if !is_dead && (self.rows.len() < ROWS || self.rows.contains_key(&key)) {
                self.rows.insert(key, value);
            }
        }
    }

    fn compared(&self, found: &HashMap<String, Bytes>) -> Verified {
        for (key, again) in &self.rows {
            let difference = match (found.get(key), again) {
                (None, None) => None,
                (Some(_), None) => Some("it exists, and a replay gives none".to_owned()),
                (None, Some(_)) => Some("it does not exist, and a replay gives one".to_owned()),
                (Some(found), Some(again)) => first_difference(found, again),
            };
            if let Some(difference) = difference {
                let (view, key) = key.split_once(END).unwrap_or(("", key));
                let key = shown(key);
                return Verified::Differs {
                    what: format!(
                        "row `{key}` of view `{view}` differs from a replay of its key alone: \
                         {difference}"
                    ),
                };
            }
        }
        Verified::Equal
    }
}

/// A fresh `RandomState` is seeded at random; no better dice are needed here.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
