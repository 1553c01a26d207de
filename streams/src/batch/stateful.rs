//! Operators as stages.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use super::{Batch, Panic, Saved, Stage};
use crate::{
    Changes, Codec, Input, Omitted, Operator, Output, Place, Row, Span, State, StateError, Time,
};

/// Which item of a stage: the record that caused it, and its number among those that reach
/// the stage because of that record.
///
/// ```
/// use annals_streams::{ItemAt, Place};
///
/// let second = ItemAt { place: Place::at(7), number: 1 };
/// assert!(second > ItemAt { place: Place::at(7), number: 0 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(clippy::exhaustive_structs)]
pub struct ItemAt {
    /// Where the record is.
    pub place: Place,
    /// From 0.
    pub number: u32,
}

/// Who decides about items over which an operator panics.
///
/// A panic while an item goes in leaves the operator spoiled: it goes on to the caller of the
/// stage, who throws the stages away, makes them again from saved state, and sends the page again,
/// without that item. A panic while a result is put together, or while an item is looked at whose
/// turn came later, spoils nothing: only the result or the item is skipped.
///
/// State that cannot be saved is found when it is saved, which is long after the item that made it
/// so. Then the items since are sent again with [`SkipItems::saves_each`]: state is saved after
/// each, and the first with which that fails is skipped like one over which the operator panicked.
/// What went on unwinding is a [`StateError`] then.
pub trait SkipItems<I, R>: Send {
    /// Whether this item is skipped.
    fn skips(&mut self, row: &Row<I>, at: ItemAt) -> bool;

    /// The operator panicked over this item.
    fn panicked(&mut self, row: &Row<I>, at: ItemAt, panic: &Panic);

    /// This item could not be saved while it is held, so the operator goes on without it.
    fn refused(&mut self, row: &Row<I>, why: StateError);

    /// This result could not be put together, and has no value; or it goes on without an item.
    fn lacks(&mut self, lacking: Omitted<R>);

    /// Whether state is saved after each item, to find the one with which that fails.
    fn saves_each(&self) -> bool {
        false
    }

    /// A result was made of state that cannot be saved, and is gone by now: which item made it so
    /// is not known. The caller of the stage unwinds.
    fn came_unsaved(&mut self) {}
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
    skip: Option<Skips<O>>,
    /// What was saved after single items and not given away yet.
    saved: Changes,
}

type Skips<O> = Box<dyn SkipItems<<O as Operator>::In, <O as Operator>::Out>>;

/// The item that an operator takes, by its index in the batch.
#[derive(Clone, Copy)]
struct Taking {
    row: usize,
    at: ItemAt,
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
            skip: None,
            saved: Changes::new(),
        }
    }

    /// Who decides about items over which the operator panics; without one a panic goes on to the
    /// caller, and nothing of the stage may be used again.
    ///
    /// ```
    /// # use annals_streams::{Codec, SkipItems, Operator, Stateful};
    /// fn going_on<O: Operator, C: Codec>(
    ///     stage: Stateful<O, C>,
    ///     decides: impl SkipItems<O::In, O::Out> + 'static,
    /// ) -> Stateful<O, C> {
    ///     stage.skip(decides)
    /// }
    /// ```
    #[must_use]
    pub fn skip(mut self, decides: impl SkipItems<O::In, O::Out> + 'static) -> Self {
        self.skip = Some(Box::new(decides));
        self
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

    /// Sends the rows of a page through the operator. What it takes just now is said in `taking`.
    fn operate(&mut self, batch: &Batch<O::In>, taking: &mut Option<Taking>)
    where
        O: State,
    {
        let clock = Arc::clone(&batch.page.clock);
        let saves_each = self.skip.as_ref().is_some_and(|of| of.saves_each());
        let mut from = 0;
        let mut current = None;
        let mut number = 0;
        for (index, row) in batch.rows.iter().enumerate() {
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
            number = match current {
                Some(current) if current / 2 == row.when / 2 => number + 1,
                _ => 0,
            };
            current = Some(row.when);
            *taking = None;
            self.advance(&mut from, to.min(clock.len()), &clock);
            let before = to.checked_sub(1).and_then(|before| clock.get(before));
            let watermark = before.map_or(self.watermark, |before| self.lagging(*before));
            let place = batch.page.place(cause).unwrap_or_default();
            let at = ItemAt { place, number };
            let skip = self.skip.as_mut();
            if skip.is_some_and(|decides| decides.skips(row, at)) {
                continue;
            }
            *taking = Some(Taking { row: index, at });
            if let Some(decides) = &mut self.skip
                && let Err(why) = O::check_item::<C>(&row.item)
            {
                decides.refused(row, why);
                continue;
            }
            let input = Input {
                watermark,
                time: row.time,
                place,
                item: &row.item,
            };
            self.out.because_of(row.when);
            self.operator.process(input, &mut self.out);
            if self.skip.is_some()
                && let Err(why) = self.operator.check_taken::<C>(&row.item)
            {
                resume_unwind(Box::new(why));
            }
            if saves_each {
                self.saved.of_stage(self.stage);
                if let Err(why) = self.operator.changes::<C>(&mut self.saved) {
                    resume_unwind(Box::new(why));
                }
            }
        }
        self.operator.flush(&mut self.out);
        *taking = None;
        self.advance(&mut from, clock.len(), &clock);
        if let Some(last) = clock.last() {
            self.watermark = self.watermark.max(self.lagging(*last));
        }
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
        let mut taking = None;
        let went = catch_unwind(AssertUnwindSafe(|| self.operate(batch, &mut taking)));
        if let Err(panic) = went {
            let row = taking.and_then(|Taking { row, at }| Some((batch.rows.get(row)?, at)));
            if let (Some(decides), Some((row, at))) = (&mut self.skip, row) {
                decides.panicked(row, at, &panic);
            }
            resume_unwind(panic);
        }
        if let Some(decides) = &mut self.skip
            && !decides.saves_each()
        {
            let rows = self.out.rows.iter();
            let mut checked = rows.map(|row| checked(|| O::check_result::<C>(&row.item)));
            if let Some(why) = checked.find_map(Result::err) {
                decides.came_unsaved();
                resume_unwind(Box::new(why));
            }
        }
        for lacking in self.out.lacking.drain(..) {
            match &mut self.skip {
                Some(decides) => decides.lacks(lacking),
                None => resume_unwind(lacking.panic),
            }
        }
        Batch::send(&batch.page, &mut self.out.rows, &mut *self.then);
        match &mut self.late {
            Some(late) => Batch::send(&batch.page, &mut self.out.late, &mut **late),
            None => self.out.late.clear(),
        }
    }
}

impl<O, C> Saved for Stateful<O, C>
where
    O: Operator + State + Send,
    O::Out: Send,
    O::Late: Send,
    C: Codec,
{
    fn save(&mut self, to: &mut Changes) -> Result<(), StateError> {
        to.append(std::mem::take(&mut self.saved));
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

/// A check that calls users' code; of its panic nothing is told.
fn checked(check: impl FnOnce() -> Result<(), StateError>) -> Result<(), StateError> {
    let panicked = |_| Err(StateError::new("it cannot be written"));
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(panicked)
}
