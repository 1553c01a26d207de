//! Pages of a log on their way through boxed stages, and yet record by record.
//!
//! A page names its records once, as causes, with the watermark just after each. Rows carry their
//! cause. A whole page goes through one stage after the other, and every result is at the
//! exact record that brought it forth, however the log was cut into pages.
//!
//! At one record: the watermark moves; each stage takes what the stages before it emitted because
//! of that, still under its old watermark, then moves its own and emits what closes; only then the
//! record itself goes through.

use crate::{
    Changes, Codec, Input, Operator, Output, Place, Row, Side, Span, State, StateError, Time,
};
use std::{
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
};

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
pub trait Stage<T, C: Codec>: Send {
    /// Takes the rows of a page.
    fn take(&mut self, batch: &Batch<T>);

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

/// A stage without state: for each item any number of others, with its cause and its time.
///
/// ```
/// use annals_streams::{Codec, Each, Stage};
///
/// fn words<C: Codec>(then: Box<dyn Stage<String, C>>) -> impl Stage<String, C> {
///     Each::flat(
///         |line: &String, emit: &mut dyn FnMut(String)| {
///             line.split(' ').for_each(|word| emit(word.to_string()));
///         },
///         then,
///     )
/// }
/// ```
pub struct Each<T, U, C> {
    each: EachOf<T, U>,
    out: Vec<Row<U>>,
    then: Box<dyn Stage<U, C>>,
    items: PhantomData<fn(T)>,
}

type EachOf<T, U> = Box<dyn Fn(&T, &mut dyn FnMut(U)) + Send + Sync>;

impl<T, U, C: Codec> Each<T, U, C> {
    /// Whatever `each` emits.
    ///
    /// ```
    /// # use annals_streams::{Codec, Each, Stage};
    /// fn twice<C: Codec>(then: Box<dyn Stage<u8, C>>) -> Each<u8, u8, C> {
    ///     Each::flat(|item, emit| { emit(*item); emit(*item) }, then)
    /// }
    /// ```
    pub fn flat(
        each: impl Fn(&T, &mut dyn FnMut(U)) + Send + Sync + 'static,
        then: Box<dyn Stage<U, C>>,
    ) -> Self {
        Self {
            each: Box::new(each),
            out: Vec::new(),
            then,
            items: PhantomData,
        }
    }

    /// One item for each.
    ///
    /// ```
    /// # use annals_streams::{Codec, Each, Stage};
    /// fn keyed<C: Codec>(then: Box<dyn Stage<(u8, i64), C>>) -> Each<i64, (u8, i64), C> {
    ///     Each::map(|item| ((item % 10) as u8, *item), then)
    /// }
    /// ```
    pub fn map(map: impl Fn(&T) -> U + Send + Sync + 'static, then: Box<dyn Stage<U, C>>) -> Self {
        Self::flat(move |item, emit| emit(map(item)), then)
    }

    /// One item or none for each.
    ///
    /// ```
    /// # use annals_streams::{Codec, Each, Stage};
    /// fn even<C: Codec>(then: Box<dyn Stage<i64, C>>) -> Each<i64, i64, C> {
    ///     Each::filter_map(|item| (item % 2 == 0).then_some(*item), then)
    /// }
    /// ```
    pub fn filter_map(
        map: impl Fn(&T) -> Option<U> + Send + Sync + 'static,
        then: Box<dyn Stage<U, C>>,
    ) -> Self {
        Self::flat(
            move |item, emit| {
                if let Some(item) = map(item) {
                    emit(item);
                }
            },
            then,
        )
    }
}

impl<T, U: Send, C: Codec> Stage<T, C> for Each<T, U, C> {
    fn take(&mut self, batch: &Batch<T>) {
        let mut rows = std::mem::take(&mut self.out);
        for row in &batch.rows {
            let when = row.when;
            let time = row.time;
            (self.each)(&row.item, &mut |item| rows.push(Row { when, time, item }));
        }
        let batch = Batch {
            page: batch.page.clone(),
            rows,
        };
        self.then.take(&batch);
        self.out = batch.rows;
        self.out.clear();
    }

    fn save(&mut self, to: &mut Changes) -> Result<(), StateError> {
        self.then.save(to)
    }

    fn load(
        &mut self,
        stage: u16,
        key: &[u8],
        place: &[u8],
        value: &[u8],
    ) -> Result<bool, StateError> {
        self.then.load(stage, key, place, value)
    }

    fn resume(&mut self, watermark: Time) {
        self.then.resume(watermark);
    }
}

/// An operator as a stage.
///
/// ```
/// use annals_streams::{Aligned, AlignedWindows, Codec, Count, Emission, Span, Stage, Stateful};
/// use annals_streams::WindowOptions;
///
/// fn counted<C: Codec>(
///     minutes: Aligned,
///     then: Box<dyn Stage<Emission<String, Count>, C>>,
/// ) -> impl Stage<(String, u64), C> {
///     let windows = AlignedWindows::<String, u64, Count>::new(minutes, WindowOptions::on_close());
///     Stateful::new(1, Span::ZERO, windows, then)
/// }
/// ```
pub struct Stateful<O: Operator, C> {
    stage: u16,
    lag: Span,
    operator: O,
    watermark: Time,
    out: Output<O::Out, O::Late>,
    then: Box<dyn Stage<O::Out, C>>,
    late: Option<Box<dyn Stage<O::Late, C>>>,
}

impl<O: Operator, C: Codec> Stateful<O, C> {
    /// The operator as the stage of this number, running so much later than the clock: the sum of
    /// [`Operator::lag`] over the stages before it.
    ///
    /// ```
    /// # use annals_streams::{Codec, InTimeOrder, Span, Stage, Stateful};
    /// # type Item = (String, u64);
    /// # type Sorted<C> = Stateful<InTimeOrder<String, u64>, C>;
    /// fn sorted<C: Codec>(then: Box<dyn Stage<Item, C>>) -> Sorted<C> {
    ///     Stateful::new(3, Span::ZERO, InTimeOrder::new(), then)
    /// }
    /// ```
    pub fn new(stage: u16, lag: Span, operator: O, then: Box<dyn Stage<O::Out, C>>) -> Self {
        let out = Output::new();
        Self {
            stage,
            lag,
            operator,
            watermark: Time::MIN,
            out,
            then,
            late: None,
        }
    }

    /// Where late items go; nowhere otherwise.
    ///
    /// ```
    /// # use annals_streams::{Codec, InTimeOrder, Span, Stage, Stateful};
    /// # type Item = (String, u64);
    /// fn with_late<C: Codec>(
    ///     then: Box<dyn Stage<Item, C>>,
    ///     late: Box<dyn Stage<Item, C>>,
    /// ) -> Stateful<InTimeOrder<String, u64>, C> {
    ///     Stateful::new(3, Span::ZERO, InTimeOrder::new(), then).late(late)
    /// }
    /// ```
    #[must_use]
    pub fn late(mut self, late: Box<dyn Stage<O::Late, C>>) -> Self {
        self.late = Some(late);
        self
    }

    fn lagging(&self, watermark: Time) -> Time {
        // The end of time is the end for all.
        if watermark == Time::MAX {
            watermark
        } else {
            watermark - self.lag
        }
    }

    /// Moves the operator to each cause in `from..to` at which something is due.
    fn advance(&mut self, from: &mut usize, to: usize, clock: &[Time]) {
        while *from < to && self.lagging(clock[to - 1]) >= self.operator.next_due() {
            let due = self.operator.next_due();
            let before = clock[*from..to].partition_point(|after| self.lagging(*after) < due);
            let cause = *from + before;
            // What thins out updates has taken the record by now, and what leaves follows it.
            let when = 2 * cause as u32 + u32::from(!O::CLOCK_FIRST);
            self.out.because_of(when);
            self.operator
                .advance(self.lagging(clock[cause]), &mut self.out);
            *from = cause + 1;
        }
        *from = (*from).max(to);
    }
}

impl<O, C> Stage<O::In, C> for Stateful<O, C>
where
    O: Operator + State + Send,
    O::Out: Send,
    O::Late: Send,
    C: Codec,
{
    fn take(&mut self, batch: &Batch<O::In>) {
        let clock = Arc::clone(&batch.page.clock);
        let mut from = 0;
        let mut current = None;
        for row in &batch.rows {
            let cause = row.cause();
            let is_record = row.when % 2 == 1;
            let to = if is_record && O::CLOCK_FIRST {
                cause + 1
            } else {
                cause
            };
            if current.is_some_and(|current| current != row.when) {
                self.operator.flush(&mut self.out);
            }
            current = Some(row.when);
            self.advance(&mut from, to.min(clock.len()), &clock);
            let before = to.checked_sub(1).and_then(|before| clock.get(before));
            let watermark = before.map_or(self.watermark, |before| self.lagging(*before));
            let place = batch.page.place(cause).unwrap_or_default();
            let input = Input {
                watermark,
                time: row.time,
                place,
                item: &row.item,
            };
            self.out.because_of(row.when);
            self.operator.process(input, &mut self.out);
        }
        self.operator.flush(&mut self.out);
        self.advance(&mut from, clock.len(), &clock);
        if let Some(last) = clock.last() {
            self.watermark = self.watermark.max(self.lagging(*last));
        }
        let rows = std::mem::take(&mut self.out.rows);
        let mut done = Batch {
            page: batch.page.clone(),
            rows,
        };
        self.then.take(&done);
        done.rows.clear();
        self.out.rows = done.rows;
        let rows = std::mem::take(&mut self.out.late);
        if let Some(late) = &mut self.late {
            late.take(&Batch {
                page: batch.page.clone(),
                rows,
            });
        }
    }

    fn save(&mut self, to: &mut Changes) -> Result<(), StateError> {
        to.of_stage(self.stage);
        self.operator.changes::<C>(to)?;
        self.then.save(to)?;
        self.late.as_mut().map_or(Ok(()), |late| late.save(to))
    }

    fn load(
        &mut self,
        stage: u16,
        key: &[u8],
        place: &[u8],
        value: &[u8],
    ) -> Result<bool, StateError> {
        if stage == self.stage {
            self.operator.restore::<C>(key, place, value)?;
            return Ok(true);
        }
        if self.then.load(stage, key, place, value)? {
            return Ok(true);
        }
        match &mut self.late {
            Some(late) => late.load(stage, key, place, value),
            None => Ok(false),
        }
    }

    fn resume(&mut self, watermark: Time) {
        self.watermark = self.lagging(watermark);
        self.operator.resume(self.watermark);
        self.then.resume(watermark);
        if let Some(late) = &mut self.late {
            late.resume(watermark);
        }
    }
}

/// One stream for several stages.
///
/// ```
/// use annals_streams::{Branch, Codec, Stage};
///
/// fn both<C: Codec>(one: Box<dyn Stage<u8, C>>, other: Box<dyn Stage<u8, C>>) -> Branch<u8, C> {
///     Branch::new(vec![one, other])
/// }
/// ```
pub struct Branch<T, C> {
    to: Vec<Box<dyn Stage<T, C>>>,
}

impl<T, C: Codec> Branch<T, C> {
    /// To each of these, in this order.
    ///
    /// ```
    /// # use annals_streams::{Branch, Codec};
    /// fn nowhere<C: Codec>() -> Branch<u8, C> {
    ///     Branch::new(vec![])
    /// }
    /// ```
    pub fn new(to: Vec<Box<dyn Stage<T, C>>>) -> Self {
        Self { to }
    }
}

impl<T, C: Codec> Stage<T, C> for Branch<T, C> {
    fn take(&mut self, batch: &Batch<T>) {
        self.to.iter_mut().for_each(|stage| stage.take(batch));
    }

    fn save(&mut self, to: &mut Changes) -> Result<(), StateError> {
        self.to.iter_mut().try_for_each(|stage| stage.save(to))
    }

    fn load(
        &mut self,
        stage: u16,
        key: &[u8],
        place: &[u8],
        value: &[u8],
    ) -> Result<bool, StateError> {
        for branch in &mut self.to {
            if branch.load(stage, key, place, value)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn resume(&mut self, watermark: Time) {
        self.to.iter_mut().for_each(|stage| stage.resume(watermark));
    }
}

/// Two streams of one log brought together, page by page, in the order of their causes; at one
/// cause the left one first.
///
/// ```
/// use annals_streams::{Codec, Joint, Side, Stage};
///
/// type Port<T, C> = Box<dyn Stage<T, C>>;
///
/// fn together<C: Codec + 'static>(then: Port<Side<u8, char>, C>) -> (Port<u8, C>, Port<char, C>) {
///     let (left, right) = Joint::ports(then);
///     (Box::new(left), Box::new(right))
/// }
/// ```
pub struct Joint<L, R, C> {
    left: Option<Vec<Row<L>>>,
    right: Option<Vec<Row<R>>>,
    then: Box<dyn Stage<Side<L, R>, C>>,
}

/// An end of a [`Joint`] for one of its streams.
///
/// ```
/// use annals_streams::{Codec, Joint, JointEnd, Side, Stage};
///
/// type Left<C> = JointEnd<u8, char, C, true>;
///
/// fn left<C: Codec>(then: Box<dyn Stage<Side<u8, char>, C>>) -> Left<C> {
///     Joint::ports(then).0
/// }
/// ```
pub struct JointEnd<L, R, C, const LEFT: bool>(Arc<Mutex<Joint<L, R, C>>>);

impl<L, R, C: Codec> Joint<L, R, C> {
    /// The two ends. Each has to take every page.
    ///
    /// ```
    /// # use annals_streams::{Codec, Joint, Side, Stage};
    /// fn ends<C: Codec>(then: Box<dyn Stage<Side<u8, u8>, C>>) {
    ///     let (_left, _right) = Joint::ports(then);
    /// }
    /// ```
    pub fn ports(
        then: Box<dyn Stage<Side<L, R>, C>>,
    ) -> (JointEnd<L, R, C, true>, JointEnd<L, R, C, false>) {
        let joint = Arc::new(Mutex::new(Self {
            left: None,
            right: None,
            then,
        }));
        (JointEnd(Arc::clone(&joint)), JointEnd(joint))
    }

    fn go_on(&mut self, page: &Page) {
        if self.left.is_none() || self.right.is_none() {
            return;
        }
        let left = self.left.take().unwrap_or_default();
        let right = self.right.take().unwrap_or_default();
        let mut rows = Vec::with_capacity(left.len() + right.len());
        let mut right = right.into_iter().peekable();
        for row in left {
            while let Some(earlier) = right.next_if(|other| other.when < row.when) {
                rows.push(Row {
                    when: earlier.when,
                    time: earlier.time,
                    item: Side::Right(earlier.item),
                });
            }
            rows.push(Row {
                when: row.when,
                time: row.time,
                item: Side::Left(row.item),
            });
        }
        let rest = right.map(|row| Row {
            when: row.when,
            time: row.time,
            item: Side::Right(row.item),
        });
        rows.extend(rest);
        self.then.take(&Batch {
            page: page.clone(),
            rows,
        });
    }
}

macro_rules! joint_end {
    ($is_left:literal, $item:ident, $side:ident) => {
        impl<L, R, C> Stage<$item, C> for JointEnd<L, R, C, $is_left>
        where
            L: Clone + Send,
            R: Clone + Send,
            C: Codec,
        {
            fn take(&mut self, batch: &Batch<$item>) {
                let mut joint = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                joint.$side = Some(batch.rows.clone());
                joint.go_on(&batch.page);
            }

            // What comes after both inputs is saved and loaded through one of them.
            fn save(&mut self, to: &mut Changes) -> Result<(), StateError> {
                if !$is_left {
                    return Ok(());
                }
                self.0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .then
                    .save(to)
            }

            fn load(
                &mut self,
                stage: u16,
                key: &[u8],
                place: &[u8],
                value: &[u8],
            ) -> Result<bool, StateError> {
                if !$is_left {
                    return Ok(false);
                }
                let mut joint = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                joint.then.load(stage, key, place, value)
            }

            fn resume(&mut self, watermark: Time) {
                if $is_left {
                    let mut joint = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                    joint.then.resume(watermark);
                }
            }
        }
    };
}

joint_end!(true, L, left);
joint_end!(false, R, right);

/// The end of a pipeline: what is done with each batch.
///
/// ```
/// use annals_streams::{Batch, Codec, Sink, Stage};
///
/// fn counted<C: Codec>() -> impl Stage<u8, C> {
///     let mut seen = 0;
///     Sink::new(move |batch: &Batch<u8>| seen += batch.rows.len())
/// }
/// ```
pub struct Sink<F>(F);

impl<F> Sink<F> {
    /// Does this.
    ///
    /// ```
    /// # use annals_streams::{Batch, Sink};
    /// Sink::new(|_: &Batch<u8>| ());
    /// ```
    pub fn new(f: F) -> Self {
        Self(f)
    }
}

impl<T, C: Codec, F: FnMut(&Batch<T>) + Send> Stage<T, C> for Sink<F> {
    fn take(&mut self, batch: &Batch<T>) {
        (self.0)(batch);
    }

    fn save(&mut self, _: &mut Changes) -> Result<(), StateError> {
        Ok(())
    }

    fn load(&mut self, _: u16, _: &[u8], _: &[u8], _: &[u8]) -> Result<bool, StateError> {
        Ok(false)
    }

    fn resume(&mut self, _: Time) {}
}
