//! `events.lock`: what is stored, pinned in a file, so that changing it by accident fails a test
//! with the reason.

mod compare;
mod drift;
mod file;
mod growth;
mod probe;

use std::any::TypeId;
use std::fmt::{self, Debug};
use std::path::PathBuf;

use crate::aggregate::{Aggregate, Snapshots};
use crate::event::NewEvent;
use crate::typed::{Event, Shape, Stored};

pub use self::drift::Drift;
use self::drift::explained;
use self::file::{Lock, Sample};

/// Pins the shape of every event, and the result of every fold, in a file that is read in review
/// and kept for ever.
///
/// ```no_run
/// use annals_core::testing::EventsLock;
/// # use annals_core::Aggregate;
/// # use annals_macros::Event;
/// # use serde::{Deserialize, Serialize};
///
/// # #[derive(Event, Debug, Serialize, Deserialize)]
/// # #[event(crate = "annals_core", category = "account")]
/// # enum AccountEvent { Opened { owner: String }, Deposited { cents: i64 } }
/// # #[derive(Debug, Default)]
/// # struct Account;
/// # impl Aggregate for Account {
/// #     type Event = AccountEvent;
/// #     fn apply(&mut self, _: &AccountEvent) {}
/// # }
/// #[test]
/// # fn doctests_have_no_tests() {}
/// fn what_is_stored_stays_readable() {
///     EventsLock::at(concat!(env!("CARGO_MANIFEST_DIR"), "/events.lock"))
///         .events([
///             AccountEvent::Opened { owner: "Ada".into() },
///             AccountEvent::Deposited { cents: 5 },
///         ])
///         .aggregate::<Account>("account")
///         .check();
/// }
/// # what_is_stored_stays_readable();
/// ```
///
/// The test fails
///
/// - when a current shape has other fields or tags, or writes a sample in other bytes: it needs a
///   new version,
/// - when a sample is read back as another value, by what its `Debug` prints: serde does not write
///   something, as with `#[serde(skip)]`, and fills in a default where it is read,
/// - when a value that the test gives is no longer written as the sample that it was, also when
///   both bytes can be read: a unit or a renaming has changed,
/// - when a nested type accepts less than it did, lacks a variant, or fills in another default,
/// - when a stored sample cannot be read any more, nothing reads its event type, or an upcaster
///   makes another event of it,
/// - when the category has changed: streams are found by it,
/// - when two types write one name and version, or an entry is not as a test wrote it,
/// - when a fold gives another state over the same stored events: it needs a new version too,
/// - when something is not in the file yet: `ANNALS_UPDATE=1 cargo test` adds it, and never changes
///   what is there.
///
/// A shape that has only grown, by fields that have a default (`#[serde(default)]`) or are an
/// `Option`, is such a new thing: what is stored reads as it did. The order of fields is no part
/// of a shape. Entries of old versions stay, and their bytes go through the upcasters in every
/// run. What was never stored outside of tests may change: `ANNALS_UPDATE=force cargo test`
/// rewrites the file, and the review of its diff is the last word.
///
/// Nested types are looked at where the samples have them, by reading samples that are changed a
/// little. So give an event with every variant, and with every `Option` filled, of the types in it.
/// What no sample has is not seen, nor are aliases of nested fields, nor payloads other than JSON.
///
/// When two branches have each added to an entry, take the file of one of them and add what the
/// other has with `ANNALS_UPDATE=1`.
///
/// One file belongs to one test, which names every event type of the program. Samples and states
/// must print the same in every run: take a `BTreeMap` where a `HashMap` would do, and no clock.
#[must_use = "nothing is compared until `check`"]
pub struct EventsLock {
    path: PathBuf,
    types: Vec<Type>,
    folds: Vec<Fold>,
    /// What cannot be pinned at all.
    faults: Vec<String>,
}

/// What to do about a file that lacks something.
///
/// ```no_run
/// # use annals_core::testing::{EventsLock, Update};
/// # fn example(lock: EventsLock) -> Result<(), annals_core::testing::Drift> {
/// lock.verify(Update::Nothing)
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Update {
    /// It is a difference like any other.
    Nothing,
    /// Add what is new, unless something has changed.
    New,
    /// Rewrite it, and keep of old versions what can be read.
    Everything,
}

/// An event type of the program.
struct Type {
    id: TypeId,
    name: &'static str,
    category: &'static str,
    shapes: &'static [Shape],
    samples: Vec<Sample>,
    again: fn(&Sample) -> Result<Vec<Sample>, String>,
}

/// A fold of the program.
struct Fold {
    name: String,
    version: u32,
    events: TypeId,
    state: StateOver,
}

/// The state over stored events, as text.
type StateOver = Box<dyn Fn(&[Sample]) -> Result<String, String>>;

impl EventsLock {
    /// The file, best as `concat!(env!("CARGO_MANIFEST_DIR"), "/events.lock")`.
    pub fn at(path: impl Into<PathBuf>) -> EventsLock {
        EventsLock {
            path: path.into(),
            types: Vec::new(),
            folds: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// With an event type, and at least one sample of each of its variants. In their order they are
    /// the history that is folded.
    pub fn events<E: Event + Debug>(mut self, samples: impl IntoIterator<Item = E>) -> EventsLock {
        let mut written = Vec::new();
        for event in samples {
            match write(&event) {
                Ok(sample) => {
                    self.faults.extend(lost(&event, &sample));
                    written.push(sample);
                }
                Err(fault) => self.faults.push(fault),
            }
        }
        let id = TypeId::of::<E>();
        match self.types.iter_mut().find(|known| known.id == id) {
            Some(known) => known.samples.extend(written),
            None => self.types.push(Type {
                id,
                name: std::any::type_name::<E>(),
                category: E::CATEGORY,
                shapes: E::shapes(),
                samples: written,
                again: read_and_write::<E>,
            }),
        }
        self
    }

    /// With a fold over the stored samples of an event type, and the version that is raised
    /// whenever its result changes.
    ///
    /// ```no_run
    /// # use annals_core::{Event, testing::EventsLock};
    /// # fn example<E: Event>(lock: EventsLock) {
    /// lock.fold("how many", 1, |events: &[E]| events.len()).check();
    /// # }
    /// ```
    pub fn fold<E: Event, S: Debug>(
        mut self,
        name: impl Into<String>,
        version: u32,
        fold: impl Fn(&[E]) -> S + 'static,
    ) -> EventsLock {
        let state = move |history: &[Sample]| {
            let mut events = Vec::new();
            for sample in history {
                events.extend(read::<E>(sample)?);
            }
            // Blanks at the end of a line are not kept by every editor, so they are in no file.
            let text = || {
                let state = format!("{:#?}", fold(&events));
                state
                    .lines()
                    .map(str::trim_end)
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            let state = text();
            if state == text() {
                Ok(state)
            } else {
                Err("its state prints differently each time".to_owned())
            }
        };
        self.folds.push(Fold {
            name: name.into(),
            version,
            events: TypeId::of::<E>(),
            state: Box::new(state),
        });
        self
    }

    /// With the fold of an aggregate, under the version that its snapshots have (1 when it has
    /// none).
    pub fn aggregate<A: Aggregate + Debug>(self, name: impl Into<String>) -> EventsLock {
        let version = A::snapshots().map_or(1, |snapshots: Snapshots<A>| snapshots.fold().version);
        self.fold(name, version, |events: &[A::Event]| {
            let mut state = A::default();
            for event in events {
                state.apply(event);
            }
            state
        })
    }

    /// Compares the program with the file; the environment variable `ANNALS_UPDATE` (`1` or
    /// `force`) updates it.
    ///
    /// # Panics
    ///
    /// When they differ, with what differs and what to do.
    #[track_caller]
    pub fn check(self) {
        let update = match std::env::var("ANNALS_UPDATE").as_deref() {
            Err(_) | Ok("" | "0") => Update::Nothing,
            Ok("1") => Update::New,
            Ok("force") => Update::Everything,
            Ok(other) => {
                panic!("ANNALS_UPDATE is `{other}`: it may be `1`, to add what is new, or `force`")
            }
        };
        if let Err(drift) = self.verify(update) {
            panic!("{drift}");
        }
    }

    /// The same without a panic and without looking at the environment.
    ///
    /// # Errors
    ///
    /// [`Drift`], when program and file differ and the update does not settle it. Nothing was
    /// written.
    pub fn verify(self, update: Update) -> Result<(), Drift> {
        let wrong = |wrong: String| Drift::new(&self.path, vec![wrong]);
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(wrong(format!("The file cannot be read: {error}."))),
        };
        let rewrite = update == Update::Everything;
        let file = match Lock::parse(&text) {
            Ok((file, merged)) if rewrite || merged.is_empty() => file,
            Ok((_, merged)) => {
                let merged = merged.iter().map(|entry| drift::merged(entry, &self.path));
                return Err(Drift::new(&self.path, merged.collect()));
            }
            // Rewritten, it need not be understood.
            Err(_) if rewrite => Lock::default(),
            Err(error) => return Err(wrong(error)),
        };
        let compared = self.compare(&file, rewrite);
        let mut differences = compared.changed;
        if update == Update::Nothing {
            differences.extend(compared.missing);
        }
        if !differences.is_empty() {
            return Err(Drift::new(&self.path, differences));
        }
        if compared.updated != file {
            std::fs::write(&self.path, compared.updated.to_string())
                .map_err(|error| wrong(format!("The file cannot be written: {error}.")))?;
        }
        Ok(())
    }
}

impl Debug for EventsLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventsLock")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// The sample as a store would get it.
fn write<E: Event>(event: &E) -> Result<Sample, String> {
    let new = NewEvent::written(event)
        .map_err(|error| format!("A sample cannot be written: {}.", explained(&error)))?;
    let sample = Sample {
        event_type: new.event_type.into_owned(),
        schema_version: new.schema_version,
        codec: new.codec.into_owned(),
        payload: new.payload.to_vec(),
        tags: new.tags.iter().map(ToString::to_string).collect(),
    };
    // They are words of a line in the file.
    for name in [&sample.event_type, &sample.codec] {
        if name.contains(char::is_whitespace) {
            return Err(format!(
                "The name `{name}` holds a space: it cannot be pinned."
            ));
        }
    }
    Ok(sample)
}

fn read<E: Event>(sample: &Sample) -> Result<Vec<E>, String> {
    let stored = Stored {
        event_type: &sample.event_type,
        schema_version: sample.schema_version,
        codec: &sample.codec,
        payload: &sample.payload,
    };
    let decoded = E::decode(stored).map_err(|error| explained(&error))?;
    Ok(decoded.into_iter().collect())
}

/// What is wrong with a sample that is not read back as it was. One that cannot be read at all is
/// found where the samples are compared.
fn lost<E: Event + Debug>(event: &E, sample: &Sample) -> Option<String> {
    let read = read::<E>(sample).ok()?;
    let [was, is] = [format!("[{event:?}]"), format!("{read:?}")];
    (was != is).then(|| {
        format!(
            "A sample of `{}` is read back as another value: something of it is not written, as \
             with `#[serde(skip)]`. Write all of it, or keep it out of the event.\n  \
             was: {was}\n   is: {is}",
            sample.event_type
        )
    })
}

/// What a stored sample is when it is read and written today.
fn read_and_write<E: Event>(sample: &Sample) -> Result<Vec<Sample>, String> {
    read::<E>(sample)?.iter().map(write).collect()
}
