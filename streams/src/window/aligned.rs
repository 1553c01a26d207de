//! Tumbling and hopping windows, kept in the way that suits how they emit.

use crate::{
    Aligned, Emission, Fold, Input, Key, Late, Operator, Output, Span, StateError, Time,
    WindowOptions,
    state::{Bytes, Codec, Mark, Marks, Pieces, holds},
    window::{panes::Panes, slices::Slices},
};

/// Tumbling or hopping windows over keyed items.
///
/// An item is folded into each of its windows that still takes items; the windows that it missed
/// are told in the late side output. A window without items never exists, however far the
/// watermark jumps. The row of a result has the last moment of its window as its time.
///
/// Adding costs one look-up; with [`Emit::OnClose`](crate::Emit::OnClose) this is so however many
/// windows hold the item, and a hopping window then costs its number of slides at close.
///
/// ```
/// use annals_streams::{
///     Aligned, AlignedWindows, Count, Input, Operator, Output, Place, Span, Time, WindowOptions,
/// };
///
/// let hops = Aligned::hopping(Span::from_micros(10), Span::from_micros(5))?;
/// let mut counts = AlignedWindows::<String, (), Count>::new(hops, WindowOptions::on_close());
/// let mut out = Output::new();
/// let item = ("ann".to_string(), ());
/// let time = Time::from_micros(7);
/// let place = Place::at(1);
/// counts.process(Input { watermark: Time::MIN, time, place, item: &item }, &mut out);
/// counts.advance(Time::MAX, &mut out);
/// let starts: Vec<i64> = out.rows.iter().map(|row| row.item.window.start.micros()).collect();
/// assert_eq!(starts, [0, 5]);
/// # Ok::<(), annals_streams::ConfigError>(())
/// ```
pub struct AlignedWindows<K, T, A>(Way<K, T, A>);

enum Way<K, T, A> {
    Panes(Panes<K, T, A>),
    Slices(Slices<K, T, A>),
}

macro_rules! either {
    ($on:expr, $way:ident => $do:expr) => {
        match $on {
            Way::Panes($way) => $do,
            Way::Slices($way) => $do,
        }
    };
}

impl<K: Key, T, A: Fold<T>> AlignedWindows<K, T, A> {
    /// Empty windows.
    ///
    /// ```
    /// # use annals_streams::{Aligned, AlignedWindows, Count, Span, WindowOptions};
    /// let minutes = Aligned::tumbling(Span::from_micros(60_000_000))?;
    /// AlignedWindows::<u64, (), Count>::new(minutes, WindowOptions::on_update());
    /// # Ok::<(), annals_streams::ConfigError>(())
    /// ```
    pub fn new(aligned: Aligned, options: WindowOptions) -> Self {
        // Parts of a window can be put together at close when no result is seen before, nothing is
        // discarded, and the order of items is of no account.
        let whole = options.emit.on_update() || options.discarding || !A::COMMUTES;
        Self(if whole || aligned.is_tumbling() {
            Way::Panes(Panes::new(aligned, options))
        } else {
            Way::Slices(Slices::new(aligned, options))
        })
    }
}

impl<K: Key, T: Clone, A: Fold<T>> Operator for AlignedWindows<K, T, A> {
    type In = (K, T);
    type Out = Emission<K, A>;
    type Late = Late<K, T>;

    fn check_result<C: Codec>(result: &Self::Out) -> Result<(), StateError> {
        holds::<C, _>(&result.value)
    }

    fn next_due(&self) -> Time {
        either!(&self.0, way => way.next_due())
    }

    fn advance(&mut self, watermark: Time, out: &mut Output<Self::Out, Self::Late>) {
        either!(&mut self.0, way => way.advance(watermark, out));
    }

    fn process(&mut self, input: Input<'_, Self::In>, out: &mut Output<Self::Out, Self::Late>) {
        either!(&mut self.0, way => way.process(input, out));
    }

    fn lag(&self) -> Span {
        either!(&self.0, way => way.lag())
    }
}

impl<K: Key, T, A: Fold<T>> Pieces for AlignedWindows<K, T, A> {
    type Key = K;
    type Part = Time;

    fn marks(&mut self) -> &mut Marks<(K, Time)> {
        either!(&mut self.0, way => way.marks())
    }

    fn pieces(&self) -> Vec<(K, Time)> {
        either!(&self.0, way => way.pieces())
    }

    fn mark(&mut self, key: &K, start: &Time) -> Option<&mut Mark> {
        either!(&mut self.0, way => way.mark(key, start))
    }

    fn value<C: Codec>(&self, key: &K, start: &Time) -> Result<Option<Vec<u8>>, StateError> {
        either!(&self.0, way => way.value::<C>(key, start))
    }

    fn put_back<C: Codec>(
        &mut self,
        key: K,
        start: Time,
        value: Bytes<'_>,
    ) -> Result<(), StateError> {
        either!(&mut self.0, way => way.put_back::<C>(key, start, value))
    }

    fn resumed(&mut self, watermark: Time) {
        either!(&mut self.0, way => way.resumed(watermark));
    }
}
