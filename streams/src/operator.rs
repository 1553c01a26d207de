//! What all operators have in common: records go in one by one with the watermark at which they
//! came, results come out in one order, and one number says when time alone has work to do.

use crate::{Codec, Panic, Span, StateError, Time};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::hash::Hash;

/// What can be a key. Its order decides the order of results, so it has to be the order in which
/// rows are kept; its hash is used within a process only.
///
/// ```
/// fn keyed_by<K: annals_streams::Key>(_: K) {}
/// keyed_by(("Berlin".to_string(), 7_u64));
/// ```
pub trait Key: Clone + Ord + Hash + Serialize + DeserializeOwned {}

impl<K: Clone + Ord + Hash + Serialize + DeserializeOwned> Key for K {}

/// What can be held as state. Keep no `HashMap` or `HashSet` in it: their order is not the same
/// twice, and saved state would differ between two runs.
///
/// ```
/// fn held<T: annals_streams::Kept>(_: T) {}
/// held(vec![1, 2, 3]);
/// ```
pub trait Kept: Clone + Serialize + DeserializeOwned {}

impl<T: Clone + Serialize + DeserializeOwned> Kept for T {}

/// Where a record is in the log. Ties of event time are broken by it, never by arrival.
///
/// ```
/// use annals_streams::Place;
///
/// assert!(Place::at(7) < Place::at(8));
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Place {
    /// The partition of the log.
    pub partition: u32,
    /// The position in the partition.
    pub position: u64,
    /// Which of several items made of one record.
    pub index: u32,
}

impl Place {
    /// The only item of the record at `position` of the only partition.
    ///
    /// ```
    /// # use annals_streams::Place;
    /// assert_eq!(Place::at(3).partition, 0);
    /// ```
    pub const fn at(position: u64) -> Self {
        Self {
            partition: 0,
            position,
            index: 0,
        }
    }
}

/// One item on its way into an operator.
///
/// ```
/// use annals_streams::{Input, Place, Time};
///
/// let item = ("tea", 3);
/// let input = Input {
///     watermark: Time::from_micros(90),
///     time: Time::from_micros(100),
///     place: Place::at(1),
///     item: &item,
/// };
/// assert!(input.time > input.watermark);
/// ```
#[derive(Debug)]
pub struct Input<'a, T> {
    /// The watermark that decides about this item. A lower one than before is taken as before.
    pub watermark: Time,
    /// When it happened.
    pub time: Time,
    /// Where it is.
    pub place: Place,
    /// The item.
    pub item: &'a T,
}

/// An item with its cause and its own time.
///
/// ```
/// use annals_streams::{Row, Time};
///
/// let row = Row { when: 2 * 5 + 1, time: Time::from_micros(9), item: "of the record itself" };
/// assert_eq!(row.cause(), 5);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<T> {
    /// `2 * cause` for what closed because of a record, `2 * cause + 1` for the record itself.
    pub when: u32,
    /// Event time: of a closed window the last moment that it could hold.
    pub time: Time,
    /// The item.
    pub item: T,
}

impl<T> Row<T> {
    /// The index, within its page, of the record that caused it.
    ///
    /// ```
    /// # use annals_streams::{Row, Time};
    /// assert_eq!(Row { when: 4, time: Time::MIN, item: () }.cause(), 2);
    /// ```
    pub fn cause(&self) -> usize {
        (self.when / 2) as usize
    }
}

/// A result that is missing, because something of the user panicked while it was put together, or
/// while an item was looked at whose turn had come.
///
/// ```
/// use annals_streams::{Output, Time};
///
/// let mut out = Output::<u8, ()>::new();
/// out.lack(Time::MIN, 1, Box::new("cannot be merged"));
/// assert!(out.lacking[0].of.is_none());
/// ```
#[derive(Debug)]
pub struct Omitted<T> {
    /// The result, without its value.
    pub row: Row<T>,
    /// The item that is skipped, if it is one and no whole result.
    pub of: Option<Place>,
    /// What was said.
    pub panic: Panic,
}

/// What an operator has to say: results, and what came too late.
///
/// ```
/// use annals_streams::{Output, Time};
///
/// let mut out = Output::<&str, ()>::new();
/// out.emit(Time::from_micros(5), "a result");
/// assert_eq!(out.rows[0].item, "a result");
/// ```
#[derive(Debug)]
pub struct Output<T, L> {
    /// Results in the order in which they came out.
    pub rows: Vec<Row<T>>,
    /// The late side output.
    pub late: Vec<Row<L>>,
    /// What is missing because something panicked.
    pub lacking: Vec<Omitted<T>>,
    when: u32,
}

impl<T, L> Default for Output<T, L> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            late: Vec::new(),
            lacking: Vec::new(),
            when: 0,
        }
    }
}

impl<T, L> Output<T, L> {
    /// Nothing yet.
    ///
    /// ```
    /// # use annals_streams::Output;
    /// assert!(Output::<u8, u8>::new().rows.is_empty());
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// What is emitted from here on has this cause; see [`Row::when`].
    ///
    /// ```
    /// # use annals_streams::{Output, Time};
    /// let mut out = Output::<u8, ()>::new();
    /// out.because_of(3);
    /// out.emit(Time::MIN, 1);
    /// assert_eq!(out.rows[0].when, 3);
    /// ```
    pub fn because_of(&mut self, when: u32) {
        self.when = when;
    }

    /// Adds a result.
    ///
    /// ```
    /// # use annals_streams::{Output, Time};
    /// Output::<u8, ()>::new().emit(Time::MIN, 1);
    /// ```
    pub fn emit(&mut self, time: Time, item: T) {
        self.rows.push(Row {
            when: self.when,
            time,
            item,
        });
    }

    /// Adds to the late side output.
    ///
    /// ```
    /// # use annals_streams::{Output, Time};
    /// Output::<(), u8>::new().refuse(Time::MIN, 1);
    /// ```
    pub fn refuse(&mut self, time: Time, item: L) {
        self.late.push(Row {
            when: self.when,
            time,
            item,
        });
    }

    /// Adds a result that could not be put together.
    ///
    /// ```
    /// # use annals_streams::{Output, Time};
    /// let mut out = Output::<Option<u8>, ()>::new();
    /// out.lack(Time::MIN, None, Box::new("cannot be merged"));
    /// assert_eq!(out.lacking.len(), 1);
    /// ```
    pub fn lack(&mut self, time: Time, item: T, panic: Panic) {
        self.lacking.push(Omitted {
            row: Row {
                when: self.when,
                time,
                item,
            },
            of: None,
            panic,
        });
    }

    /// Adds that an item which came earlier, at this place, is skipped now that its turn has come.
    /// `item` is what would have been made of it alone.
    ///
    /// ```
    /// # use annals_streams::{Output, Place, Time};
    /// let mut out = Output::<u8, ()>::new();
    /// out.lack_of(Time::MIN, Place::at(7), 1, Box::new("no condition"));
    /// assert_eq!(out.lacking[0].of, Some(Place::at(7)));
    /// ```
    pub fn lack_of(&mut self, time: Time, place: Place, item: T, panic: Panic) {
        self.lack(time, item, panic);
        if let Some(lacking) = self.lacking.last_mut() {
            lacking.of = Some(place);
        }
    }

    /// Takes the results out, in their order.
    ///
    /// ```
    /// # use annals_streams::{Output, Time};
    /// let mut out = Output::<u8, ()>::new();
    /// out.emit(Time::MIN, 1);
    /// assert_eq!(out.take(), [1]);
    /// assert!(out.rows.is_empty());
    /// ```
    pub fn take(&mut self) -> Vec<T> {
        self.rows.drain(..).map(|row| row.item).collect()
    }
}

/// A pure operator: a function of the records and watermarks that it was given.
///
/// Equal inputs give equal outputs and equal state, however calls to [`Operator::advance`] are
/// spread, as long as one comes whenever the watermark has reached [`Operator::next_due`].
///
/// ```
/// use annals_streams::{
///     Aligned, AlignedWindows, Count, Input, Operator, Output, Place, Span, Time, WindowOptions,
/// };
///
/// let minutes = Aligned::tumbling(Span::from_micros(60))?;
/// let mut clicks = AlignedWindows::<String, (), Count>::new(minutes, WindowOptions::on_close());
/// let mut out = Output::new();
/// let input = Input {
///     watermark: Time::from_micros(10),
///     time: Time::from_micros(12),
///     place: Place::at(1),
///     item: &("ann".to_string(), ()),
/// };
/// clicks.process(input, &mut out);
/// assert_eq!(clicks.next_due(), Time::from_micros(59));
/// clicks.advance(Time::from_micros(59), &mut out);
/// assert_eq!(out.rows.len(), 1);
/// # Ok::<(), annals_streams::ConfigError>(())
/// ```
pub trait Operator {
    /// What goes in.
    type In;
    /// What comes out.
    type Out;
    /// What is refused as late.
    type Late;

    /// Whether what is due at a record's watermark comes out before the record goes in. Only
    /// what thins out updates says no, so that the newest value is the one that leaves.
    const CLOCK_FIRST: bool = true;

    /// The least watermark at which [`Operator::advance`] has something to do; it may be too
    /// low, never too high. [`Time::MAX`] when nothing waits.
    fn next_due(&self) -> Time;

    /// Moves the watermark: emits everything that closes, in the order of (last moment, start,
    /// key), and only then drops what has expired.
    fn advance(&mut self, watermark: Time, out: &mut Output<Self::Out, Self::Late>);

    /// Takes an item. What is due at its watermark is emitted first when
    /// [`Operator::CLOCK_FIRST`] holds.
    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>);

    /// Nothing more comes with this cause: emits what was gathered for it.
    fn flush(&mut self, out: &mut Output<Self::Out, Self::Late>) {
        let _ = out;
    }

    /// Refuses an item that would be held as it is and could not be saved, or would not be read
    /// back as it was. What is only folded into something else is not looked at.
    ///
    /// # Errors
    ///
    /// Why it cannot be saved.
    fn check_item<C: Codec>(item: &Self::In) -> Result<(), StateError> {
        let _ = item;
        Ok(())
    }

    /// Whether the state that this item was just taken into can be saved: of state that a later
    /// item may set to anything else, so that no later look shows it.
    ///
    /// # Errors
    ///
    /// Why it cannot be saved.
    fn check_taken<C: Codec>(&self, item: &Self::In) -> Result<(), StateError> {
        let _ = item;
        Ok(())
    }

    /// Refuses a result that was held as it is until it came out and could not have been saved.
    ///
    /// # Errors
    ///
    /// Why it could not have been saved.
    fn check_result<C: Codec>(result: &Self::Out) -> Result<(), StateError> {
        let _ = result;
        Ok(())
    }

    /// How far the time of a result may lie before the watermark that was the last one when it
    /// came out. Stages after this one run that much later, so that none of its results is late
    /// for them.
    ///
    /// It is about what was on time here. What hands on an item as it came, at its own time, hands
    /// on a late one too.
    fn lag(&self) -> Span {
        Span::ZERO
    }
}
