//! Operators as stages.

use std::sync::Arc;

use super::{Batch, Stage};
use crate::{Changes, Codec, Input, Operator, Output, Span, State, StateError, Time};

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
