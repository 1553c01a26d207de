//! Where a stream is divided by key: the stages before it are run once for all slots of a process,
//! the stages after it once for each slot, with its own keys.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::Partition;
use annals_runner::slot_of;
use annals_streams::{Batch, Changes, Page, Panic, Row, Saved, Stage, StateError, Time};

use super::graph::{At, Making, Node, Port, StateJson};
use super::panics::NameOf;

/// Which keys go where.
#[derive(Clone, Default)]
pub(crate) enum DivideBy {
    /// All into one slot.
    #[default]
    One,
    /// Each into the slot of its key.
    Slots(u16),
    /// All into the slot of their partition, where the log must have the stream of each key.
    Partition(Partition, PartitionOf),
    /// Those that are chosen by the text of their key into one slot, the others nowhere.
    Chosen(Arc<dyn Fn(&str) -> bool + Send + Sync>),
}

/// The partition of the stream of this name; nothing where no stream is called so.
pub(crate) type PartitionOf = Arc<dyn Fn(&str) -> Option<Partition> + Send + Sync>;

impl DivideBy {
    /// How many slots there are.
    pub(crate) fn slots(&self) -> u16 {
        match self {
            DivideBy::Slots(slots) => (*slots).max(1),
            _ => 1,
        }
    }
}

impl fmt::Debug for DivideBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DivideBy::One => f.write_str("One"),
            DivideBy::Slots(slots) => write!(f, "Slots({slots})"),
            DivideBy::Partition(partition, _) => write!(f, "Partition({partition})"),
            DivideBy::Chosen(_) => f.write_str("Chosen"),
        }
    }
}

/// What the stages before the keys gave for a page.
#[derive(Default)]
pub(crate) struct Divided {
    /// For each place where a stream is divided, by slot; nothing where a slot has none.
    pub(crate) rows: Vec<Vec<Option<Box<dyn DividedRows>>>>,
    /// Causes whose key is of another partition than they are, and why that is so.
    pub(crate) misplaced: Vec<(usize, String)>,
}

/// Rows of one slot, their type forgotten.
pub(crate) trait DividedRows: Any + Send {
    /// Keeps the rows of these causes, and numbers the causes from the first.
    fn keep(&mut self, cause: &dyn Fn(usize) -> Option<usize>);

    /// Tells of keys, at most so many, and of how many rows each has.
    fn sample(&self, most: usize, tell: &mut dyn FnMut(String, u64));

    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

type TextOf<U> = Arc<dyn Fn(&U) -> String + Send + Sync>;

struct Rows<U> {
    rows: Vec<Row<U>>,
    text: TextOf<U>,
}

impl<U: Send + 'static> DividedRows for Rows<U> {
    fn keep(&mut self, cause: &dyn Fn(usize) -> Option<usize>) {
        self.rows.retain_mut(|row| {
            let kept = cause(row.cause());
            row.when = kept.map_or(row.when, |kept| 2 * kept as u32 + row.when % 2);
            kept.is_some()
        });
    }

    fn sample(&self, most: usize, tell: &mut dyn FnMut(String, u64)) {
        let step = self.rows.len().div_ceil(most.max(1)).max(1);
        for row in self.rows.iter().step_by(step) {
            tell((self.text)(&row.item), step as u64);
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Where a stream is divided, as the slots know it.
pub(crate) trait Keying: Send + Sync {
    /// The sources that lead there.
    fn sources(&self) -> Arc<[usize]>;

    /// The stages that follow, for a slot.
    fn open(&self, making: &mut Making) -> Box<dyn OpenKeying>;
}

/// What follows in a slot.
pub(crate) trait OpenKeying: Send {
    /// Sends the rows of the slot on their way, and how far time has come where it has none.
    fn send(&mut self, page: &Page, rows: Option<Box<dyn DividedRows>>);

    /// The stages that follow.
    fn then(&mut self) -> &mut dyn Saved;
}

struct KeyingOf<U> {
    sources: Arc<[usize]>,
    to: Node<U>,
}

impl<U: Send + 'static> Keying for KeyingOf<U> {
    fn sources(&self) -> Arc<[usize]> {
        Arc::clone(&self.sources)
    }

    fn open(&self, making: &mut Making) -> Box<dyn OpenKeying> {
        Box::new(Opened {
            then: self.to.port(making),
        })
    }
}

struct Opened<U> {
    then: Port<U>,
}

impl<U: Send + 'static> OpenKeying for Opened<U> {
    fn send(&mut self, page: &Page, rows: Option<Box<dyn DividedRows>>) {
        // Both are made for the same place.
        let rows = rows.and_then(|rows| rows.into_any().downcast::<Rows<U>>().ok());
        let mut rows = rows.map_or_else(Vec::new, |of| of.rows);
        Batch::send(page, &mut rows, &mut *self.then);
    }

    fn then(&mut self) -> &mut dyn Saved {
        &mut *self.then
    }
}

/// In which stream of the log a key is, where that is not the one of its own text.
pub(crate) struct StreamOf<U>(Arc<Mutex<Option<TextOf<U>>>>);

impl<U> StreamOf<U> {
    pub(crate) fn own_text() -> StreamOf<U> {
        StreamOf(Arc::default())
    }

    pub(crate) fn set(&self, stream: impl Fn(&U) -> String + Send + Sync + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(stream));
    }

    fn or(&self, text: &TextOf<U>) -> TextOf<U> {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.as_ref().map_or_else(|| Arc::clone(text), Arc::clone)
    }
}

impl<U> Clone for StreamOf<U> {
    fn clone(&self) -> StreamOf<U> {
        StreamOf(Arc::clone(&self.0))
    }
}

/// Divides what comes out of a node: `make` gives it its key, and `text` is the key as rows have
/// it.
pub(crate) fn divide<T: Send + 'static, U: Send + 'static>(
    at: &At,
    (from, name): (&Node<T>, NameOf<T>),
    make: impl Fn(&T) -> U + Send + Sync + 'static,
    text: impl Fn(&U) -> String + Send + Sync + 'static,
    stream: StreamOf<U>,
) -> Node<U> {
    let to = Node::new();
    let keying = KeyingOf {
        sources: Arc::clone(&at.sources),
        to: to.clone(),
    };
    let number = {
        let mut draft = at.graph.lock();
        draft.keyings.push(Arc::new(keying));
        draft.keyings.len() - 1
    };
    let of = at.numbered();
    let make = Arc::new(make);
    let text: TextOf<U> = Arc::new(text);
    from.attach(move |making| {
        let make = Arc::clone(&make);
        Box::new(Divide {
            number,
            make: Box::new(move |item| make(item)),
            stream: stream.or(&text),
            text: Arc::clone(&text),
            by: making.divide_by.clone(),
            to: Arc::clone(&making.divided),
            on_panic: Box::new(making.on_panic(of, name)),
        })
    });
    to
}

type OnPanic<T> = Box<dyn Fn(&Row<T>, Panic) + Send>;

struct Divide<T, U> {
    number: usize,
    make: Box<dyn Fn(&T) -> U + Send>,
    text: TextOf<U>,
    /// The stream of the log that a key is in.
    stream: TextOf<U>,
    by: DivideBy,
    to: Arc<Mutex<Divided>>,
    on_panic: OnPanic<T>,
}

impl<T, U> Divide<T, U> {
    fn put(&self, row: &Row<T>, slots: &mut [Vec<Row<U>>], misplaced: &mut Vec<(usize, String)>) {
        let item = (self.make)(&row.item);
        let slot = match &self.by {
            DivideBy::One => 0,
            DivideBy::Slots(1) => 0,
            DivideBy::Slots(count) => slot_of(&(self.text)(&item), *count),
            DivideBy::Chosen(is_chosen) => {
                if !is_chosen(&(self.text)(&item)) {
                    return;
                }
                0
            }
            DivideBy::Partition(here, partition_of) => {
                let stream = (self.stream)(&item);
                let there = partition_of(&stream);
                if there != Some(*here) {
                    let why = misplaced_key(&(self.text)(&item), &stream, there);
                    misplaced.push((row.cause(), why));
                    return;
                }
                0
            }
        };
        if let Some(of_slot) = slots.get_mut(usize::from(slot)) {
            let Row { when, time, .. } = *row;
            of_slot.push(Row { when, time, item });
        }
    }
}

fn misplaced_key(key: &str, stream: &str, there: Option<Partition>) -> String {
    let key = super::dead::shown(key);
    let stream = stream.escape_debug().to_string();
    match there {
        Some(there) if key == stream => {
            format!("its key `{key}` belongs to partition {there}")
        }
        Some(there) => {
            format!("its key `{key}` is in stream `{stream}`, which belongs to partition {there}")
        }
        None => format!("its key `{key}` is in no stream: none is called `{stream}`"),
    }
}

impl<T, U: Send + 'static> Stage<T, StateJson> for Divide<T, U> {
    fn take(&mut self, batch: &Batch<T>) {
        let rows = &batch.rows;
        let mut slots: Vec<Vec<Row<U>>> = (0..self.by.slots()).map(|_| Vec::new()).collect();
        if let [only] = &mut slots[..] {
            only.reserve(rows.len());
        }
        let mut misplaced = Vec::new();
        let mut done = 0;
        while done < rows.len() {
            let went = catch_unwind(AssertUnwindSafe(|| {
                for row in &rows[done..] {
                    self.put(row, &mut slots, &mut misplaced);
                    done += 1;
                }
            }));
            if let Err(panic) = went {
                (self.on_panic)(&rows[done], panic);
                done += 1;
            }
        }
        let of_slots = slots.into_iter().map(|rows| {
            if rows.is_empty() {
                return None;
            }
            let text = Arc::clone(&self.text);
            let rows: Box<dyn DividedRows> = Box::new(Rows { rows, text });
            Some(rows)
        });
        let mut divided = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        divided.misplaced.append(&mut misplaced);
        // Rows of places that come later are not there yet.
        while divided.rows.len() <= self.number {
            divided.rows.push(Vec::new());
        }
        divided.rows[self.number] = of_slots.collect();
    }
}

/// Nothing before a key has state.
impl<T, U> Saved for Divide<T, U> {
    fn save(&mut self, _: &mut Changes) -> Result<(), StateError> {
        Ok(())
    }

    fn load(&mut self, _: u16, _: &[u8], _: &[u8], _: &[u8]) -> Result<bool, StateError> {
        Ok(false)
    }

    fn resume(&mut self, _: Time) {}
}
