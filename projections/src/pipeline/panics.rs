//! Panics of users' code in the stages of a slot, and state that cannot be saved: what is skipped
//! because of them, and what is reported of it.
//!
//! A closure without state skips the item, a result that cannot be put together is skipped by
//! itself. A fold that panics is spoiled: the stages are made again from what was saved, and go on
//! without the item. The same item panics in every other slot, batch and rebuild, so rows stay a
//! function of the log.
//!
//! State that cannot be saved, or would not be read back, is noticed when it is saved, or when it
//! comes out as a result before. Then the stages are made again too, and save after each item: the
//! one with which that fails is the one to skip.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_core::Position;
use annals_streams::{Change, Emission, ItemAt, Panic, Place, Row, Side, SkipItems, StateError};

use crate::key::ViewKey;

/// Something that a stage went on without.
#[derive(Debug)]
pub(crate) struct Omitted {
    /// The record of the page.
    pub(crate) cause: usize,
    pub(crate) stage: u16,
    /// The item or result: its key, or nothing where there is none.
    pub(crate) item: String,
    /// Where the item is, when its turn came later than the record that it is of.
    pub(crate) of: Option<Place>,
    pub(crate) why: Why,
}

/// Why a stage went on without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Panicked(String),
    /// It was refused with an error.
    Failed(String),
}

impl Why {
    /// Of what unwound: a panic, or why state cannot be saved.
    fn of(panic: &Panic) -> Why {
        match panic.downcast_ref::<StateError>() {
            Some(error) => Why::Failed(error.to_string()),
            None => Why::Panicked(annals_core::panic_text(&**panic).to_owned()),
        }
    }

    /// What happened, and what was said.
    pub(crate) fn told(&self) -> (&'static str, &str) {
        match self {
            Why::Panicked(reason) => ("panicked", reason),
            Why::Failed(reason) => ("failed", reason),
        }
    }
}

/// Why stages have to be made again from what was saved last.
#[derive(Debug)]
pub(crate) enum Redo {
    /// Without this item.
    Without(Spoiled),
    /// Saving after each item: something was made of one that cannot be saved.
    SavingEach,
}

/// An item over which an operator panicked, or whose state cannot be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spoiled {
    stage: u16,
    at: ItemAt,
    why: Why,
}

impl fmt::Display for Spoiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place {
            partition,
            position,
            ..
        } = self.at.place;
        let (what, reason) = self.why.told();
        write!(
            f,
            "a stage {what} at position {position} of partition {partition}: {reason}"
        )
    }
}

/// The panics in the stages of a slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Panics(Arc<SkipsAndState>);

#[derive(Debug, Default)]
struct SkipsAndState {
    /// Whether any item is skipped.
    any: AtomicBool,
    /// Whether state is saved after each item.
    saves_each: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    skipped: BTreeMap<(u16, ItemAt), Why>,
    spoiled: Option<Spoiled>,
    /// Whether something came out that could not have been saved.
    came_unsaved: bool,
    lacking: Vec<Omitted>,
}

impl Panics {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stage goes on without this.
    pub(crate) fn lacks(&self, lacking: Omitted) {
        self.lock().lacking.push(lacking);
    }

    /// What stages went on without since the last time.
    pub(crate) fn take_lacking(&self) -> Vec<Omitted> {
        std::mem::take(&mut self.lock().lacking)
    }

    /// What is to be done because of what unwound, if anything can be.
    pub(crate) fn take_redo(&self) -> Option<Redo> {
        let mut state = self.lock();
        state.lacking.clear();
        if let Some(spoiled) = state.spoiled.take() {
            return Some(Redo::Without(spoiled));
        }
        std::mem::take(&mut state.came_unsaved).then_some(Redo::SavingEach)
    }

    /// Whether state is saved after each item.
    pub(crate) fn saves_each(&self) -> bool {
        self.0.saves_each.load(Ordering::Acquire)
    }

    /// From now on state is saved after each item, or no more.
    pub(crate) fn save_each(&self, each: bool) {
        self.0.saves_each.store(each, Ordering::Release);
    }

    /// What is skipped so far.
    pub(crate) fn skipped(&self) -> Vec<Spoiled> {
        let state = self.lock();
        let all = state.skipped.iter().map(|((stage, at), why)| Spoiled {
            stage: *stage,
            at: *at,
            why: why.clone(),
        });
        all.collect()
    }

    /// From now on the item is skipped where it came from.
    pub(crate) fn skip(&self, spoiled: Spoiled) {
        let Spoiled { stage, at, why } = spoiled;
        self.lock().skipped.insert((stage, at), why);
        self.0.any.store(true, Ordering::Release);
    }

    /// Everything in a partition up to here is written: it never comes again.
    pub(crate) fn forget(&self, partition: u32, up_to: Position) {
        if self.0.any.load(Ordering::Acquire) {
            let mut state = self.lock();
            let is_written =
                |at: &ItemAt| at.place.partition == partition && at.place.position <= up_to.get();
            state.skipped.retain(|(_, at), _| !is_written(at));
            let any = !state.skipped.is_empty();
            self.0.any.store(any, Ordering::Release);
        }
    }

    /// For an operator that is a stage of this number.
    pub(crate) fn of_stage<I: 'static, R: 'static>(
        &self,
        stage: u16,
        item: NameOf<I>,
        result: NameOf<R>,
    ) -> impl SkipItems<I, R> + use<I, R> {
        OfStage {
            panics: self.clone(),
            stage,
            item,
            result,
        }
    }
}

/// What was said, once.
pub(crate) fn text(panic: Panic) -> String {
    let text = annals_core::panic_text(&*panic).to_owned();
    // Letting go of it may panic once more.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    text
}

/// What an item is called.
pub(crate) type NameOf<T> = fn(&T) -> String;

/// Without a key.
pub(crate) fn nameless<T>(_: &T) -> String {
    String::new()
}

/// By its key.
pub(crate) fn by_key<K: ViewKey, T>((key, _): &(K, T)) -> String {
    key.to_key()
}

/// By its window and key.
pub(crate) fn by_window<K: ViewKey, A>(of: &Emission<K, A>) -> String {
    (of.window, of.key.clone()).to_key()
}

/// By its key, on either side.
pub(crate) fn by_side<K: ViewKey, J: ViewKey, L, R>(of: &Side<(K, L), (J, R)>) -> String {
    match of {
        Side::Left((key, _)) => key.to_key(),
        Side::Right((key, _)) => key.to_key(),
    }
}

/// By the key of its row.
pub(crate) fn by_change<K: ViewKey, V>(change: &Change<K, V>) -> String {
    change.key.to_key()
}

struct OfStage<I, R> {
    panics: Panics,
    stage: u16,
    item: NameOf<I>,
    result: NameOf<R>,
}

impl<I, R> SkipItems<I, R> for OfStage<I, R> {
    fn skips(&mut self, row: &Row<I>, at: ItemAt) -> bool {
        if !self.panics.0.any.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.panics.lock();
        let Some(why) = state.skipped.get(&(self.stage, at)).cloned() else {
            return false;
        };
        state.lacking.push(Omitted {
            cause: row.cause(),
            stage: self.stage,
            item: (self.item)(&row.item),
            of: None,
            why,
        });
        true
    }

    fn panicked(&mut self, _: &Row<I>, at: ItemAt, panic: &Panic) {
        self.panics.lock().spoiled = Some(Spoiled {
            stage: self.stage,
            at,
            why: Why::of(panic),
        });
    }

    fn refused(&mut self, row: &Row<I>, why: StateError) {
        self.panics.lacks(Omitted {
            cause: row.cause(),
            stage: self.stage,
            item: (self.item)(&row.item),
            of: None,
            why: Why::Failed(why.to_string()),
        });
    }

    fn lacks(&mut self, lacking: annals_streams::Omitted<R>) {
        let annals_streams::Omitted { row, of, panic } = lacking;
        self.panics.lacks(Omitted {
            cause: row.cause(),
            stage: self.stage,
            item: (self.result)(&row.item),
            of,
            why: Why::Panicked(text(panic)),
        });
    }

    fn saves_each(&self) -> bool {
        self.panics.saves_each()
    }

    fn came_unsaved(&mut self) {
        self.panics.lock().came_unsaved = true;
    }
}
