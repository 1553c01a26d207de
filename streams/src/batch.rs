//! Pages of a log on their way through boxed stages, and yet record by record.
//!
//! A page names its records once, as causes, with the watermark just after each. Rows carry their
//! cause. A whole page goes through one stage after the other, and every result is at the
//! exact record that caused it, however the log was cut into pages.
//!
//! At one record: the watermark moves; each stage takes what the stages before it emitted because
//! of that, still under its old watermark, then moves its own and emits what closes; only then the
//! record itself goes through.

use std::any::Any;
use std::sync::Arc;

use crate::{Changes, Codec, Place, Row, StateError, Time};

mod each;
mod split;
mod stateful;

pub use each::Each;
pub use split::{Branch, Joint, JointEnd, Sink};
pub use stateful::{ItemAt, SkipItems, Stateful};

/// What a panic of a user's code said.
pub type Panic = Box<dyn Any + Send>;

/// The records of a page: where each is, and the watermark just after it.
///
/// ```
/// use annals_streams::{Page, Place, Time};
///
/// let page = Page::new([(Place::at(7), Time::from_micros(90))]);
/// assert_eq!(page.len(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct Page {
    at: Arc<[Place]>,
    clock: Arc<[Time]>,
}

impl Page {
    /// The page of these records. A watermark below the one before it counts as that one.
    ///
    /// ```
    /// # use annals_streams::Page;
    /// assert!(Page::new([]).is_empty());
    /// ```
    pub fn new(records: impl IntoIterator<Item = (Place, Time)>) -> Self {
        let mut at = Vec::new();
        let mut clock = Vec::new();
        let mut watermark = Time::MIN;
        for (place, after) in records {
            watermark = watermark.max(after);
            at.push(place);
            clock.push(watermark);
        }
        Self {
            at: at.into(),
            clock: clock.into(),
        }
    }

    /// How many records it has.
    ///
    /// ```
    /// # use annals_streams::Page;
    /// assert_eq!(Page::new([]).len(), 0);
    /// ```
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether it has none.
    ///
    /// ```
    /// # use annals_streams::Page;
    /// assert!(Page::new([]).is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// The watermark just after the last record; [`Time::MIN`] when there is none.
    ///
    /// ```
    /// # use annals_streams::{Page, Place, Time};
    /// let page = Page::new([(Place::at(7), Time::from_micros(90))]);
    /// assert_eq!(page.watermark(), Time::from_micros(90));
    /// ```
    pub fn watermark(&self) -> Time {
        self.clock.last().copied().unwrap_or(Time::MIN)
    }

    /// The same records under the lower of two clocks: what two sources that keep their own time
    /// have both reached.
    ///
    /// ```
    /// # use annals_streams::{Page, Place, Time};
    /// let at = |watermark| Page::new([(Place::at(7), Time::from_micros(watermark))]);
    /// assert_eq!(at(90).least(&at(30)).watermark(), Time::from_micros(30));
    /// ```
    #[must_use]
    pub fn least(&self, other: &Page) -> Page {
        if Arc::ptr_eq(&self.clock, &other.clock) || self.clock == other.clock {
            return self.clone();
        }
        let both = self.clock.iter().zip(other.clock.iter());
        Page {
            at: Arc::clone(&self.at),
            clock: both.map(|(one, other)| *one.min(other)).collect(),
        }
    }

    /// Where the record of a cause is.
    ///
    /// ```
    /// # use annals_streams::{Page, Place, Time};
    /// let page = Page::new([(Place::at(7), Time::MIN)]);
    /// assert_eq!(page.place(0), Some(Place::at(7)));
    /// ```
    pub fn place(&self, cause: usize) -> Option<Place> {
        self.at.get(cause).copied()
    }
}

/// Rows of a page, in the order of [`Row::when`].
///
/// ```
/// use annals_streams::{Batch, Page, Place, Row, Time};
///
/// let page = Page::new([(Place::at(7), Time::MIN)]);
/// let row = Row { when: 1, time: Time::from_micros(5), item: "tea" };
/// let batch = Batch { page, rows: vec![row] };
/// assert_eq!(batch.rows[0].cause(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct Batch<T> {
    /// The records that are the causes.
    pub page: Page,
    /// The rows.
    pub rows: Vec<Row<T>>,
}

impl<T> Batch<T> {
    /// Gives rows of this page to a stage. Their room is kept for the next ones.
    ///
    /// ```
    /// # use annals_streams::{Batch, Codec, Page, Row, Stage};
    /// fn sent<C: Codec>(rows: &mut Vec<Row<u8>>, page: &Page, to: &mut dyn Stage<u8, C>) {
    ///     Batch::send(page, rows, to);
    ///     assert!(rows.is_empty());
    /// }
    /// ```
    pub fn send<C: Codec>(page: &Page, rows: &mut Vec<Row<T>>, to: &mut dyn Stage<T, C>) {
        let batch = Batch {
            page: page.clone(),
            rows: std::mem::take(rows),
        };
        to.take(&batch);
        *rows = batch.rows;
        rows.clear();
    }
}

/// A part of a pipeline that takes batches. It hands on one batch for each that it takes, also
/// when that has no rows: time goes on.
///
/// ```
/// use annals_streams::{Batch, Codec, Each, Page, Place, Row, Sink, Stage, Time};
///
/// fn doubled<C: Codec>(then: Box<dyn Stage<i64, C>>) -> Box<dyn Stage<i64, C>> {
///     Box::new(Each::map(|item: &i64| item * 2, then))
/// }
/// ```
pub trait Stage<T, C: Codec>: Saved {
    /// Takes the rows of a page.
    fn take(&mut self, batch: &Batch<T>);
}

/// The state of a [`Stage`] and of all later ones, whatever rows they take.
///
/// ```
/// use annals_streams::{Saved, Time};
///
/// fn goes_on(stages: &mut dyn Saved) {
///     stages.resume(Time::MIN);
/// }
/// ```
pub trait Saved: Send {
    /// Writes what changed since the last time, here and in all later stages.
    ///
    /// # Errors
    ///
    /// When a value cannot be written. The commit must fail, and the pipeline start again.
    fn save(&mut self, to: &mut Changes) -> Result<(), StateError>;

    /// Takes back an entry of a stage; says whether the stage is this one or a later one.
    ///
    /// # Errors
    ///
    /// When the entry is not one that the stage writes.
    fn load(
        &mut self,
        stage: u16,
        key: &[u8],
        place: &[u8],
        value: &[u8],
    ) -> Result<bool, StateError>;

    /// All entries are back: goes on from the watermark of the clock at that moment.
    fn resume(&mut self, watermark: Time);
}
