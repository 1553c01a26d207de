//! Which windows of a fixed size hold a moment.

use crate::{ConfigError, Span, Time, Window, time::clamp};
use serde::{Deserialize, Serialize};

/// More windows than this for one item are a mistake in the parameters.
const WINDOWS_MAX: i64 = 1_000_000;

/// Windows of one size that begin at regular moments: tumbling and hopping ones.
///
/// Windows are half-open and begin at `offset` plus multiples of the slide, before 1970 as well as
/// after it.
///
/// ```
/// use annals_streams::{Aligned, Span, Time, Window};
///
/// let hops = Aligned::hopping(Span::from_micros(10), Span::from_micros(5))?;
/// let windows: Vec<Window> = hops.windows(Time::from_micros(-1)).collect();
/// let starts: Vec<i64> = windows.iter().map(|window| window.start.micros()).collect();
/// assert_eq!(starts, [-10, -5]);
/// # Ok::<(), annals_streams::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Aligned {
    size: i64,
    slide: i64,
    offset: i64,
}

impl Aligned {
    /// Windows one after another, so that each moment is in exactly one.
    ///
    /// # Errors
    ///
    /// When the size is not positive.
    ///
    /// ```
    /// # use annals_streams::{Aligned, Span};
    /// assert!(Aligned::tumbling(Span::from_micros(60)).is_ok());
    /// ```
    pub fn tumbling(size: Span) -> Result<Self, ConfigError> {
        Self::hopping(size, size)
    }

    /// Windows of this size, one beginning every `slide`. With a slide above the size there are
    /// moments in no window.
    ///
    /// # Errors
    ///
    /// When one of them is not positive, or an item would be in more than a million windows.
    ///
    /// ```
    /// # use annals_streams::{Aligned, Span};
    /// assert!(Aligned::hopping(Span::MAX, Span::from_micros(1)).is_err());
    /// ```
    pub fn hopping(size: Span, slide: Span) -> Result<Self, ConfigError> {
        let size = positive("size", size)?;
        let slide = positive("slide", slide)?;
        let windows = (size - 1) / slide + 1;
        if windows > WINDOWS_MAX {
            return Err(ConfigError::new(format!(
                "windows of {size} microseconds every {slide} put an item into {windows} windows, \
                 more than {WINDOWS_MAX}"
            )));
        }
        Ok(Self {
            size,
            slide,
            offset: 0,
        })
    }

    /// Moves where windows begin, for days of a time zone for example.
    ///
    /// ```
    /// # use annals_streams::{Aligned, Span, Time};
    /// let days = Aligned::tumbling(Span::from_micros(24))?.offset_by(Span::from_micros(-8));
    /// let window = days.windows(Time::from_micros(0)).next();
    /// assert_eq!(window.map(|window| window.start.micros()), Some(-8));
    /// # Ok::<(), annals_streams::ConfigError>(())
    /// ```
    #[must_use]
    pub fn offset_by(mut self, offset: Span) -> Self {
        self.offset = offset.micros();
        self
    }

    /// How long each window is.
    ///
    /// ```
    /// # use annals_streams::{Aligned, Span};
    /// assert_eq!(Aligned::tumbling(Span::from_micros(7))?.size(), Span::from_micros(7));
    /// # Ok::<(), annals_streams::ConfigError>(())
    /// ```
    pub fn size(&self) -> Span {
        Span::from_micros(self.size)
    }

    /// How far apart windows begin.
    ///
    /// ```
    /// # use annals_streams::{Aligned, Span};
    /// assert_eq!(Aligned::tumbling(Span::from_micros(7))?.slide(), Span::from_micros(7));
    /// # Ok::<(), annals_streams::ConfigError>(())
    /// ```
    pub fn slide(&self) -> Span {
        Span::from_micros(self.slide)
    }

    /// The windows that hold this moment, by start.
    ///
    /// ```
    /// # use annals_streams::{Aligned, Span, Time};
    /// let gaps = Aligned::hopping(Span::from_micros(5), Span::from_micros(10))?;
    /// assert_eq!(gaps.windows(Time::from_micros(7)).count(), 0);
    /// # Ok::<(), annals_streams::ConfigError>(())
    /// ```
    pub fn windows(&self, time: Time) -> impl Iterator<Item = Window> + use<> {
        let aligned = *self;
        aligned.starts(time).map(move |start| aligned.window(start))
    }

    pub(crate) fn starts(&self, time: Time) -> impl Iterator<Item = Time> + use<> {
        let newest = floor(time.micros().into(), self.slide, self.offset);
        let step = i128::from(self.slide);
        let mut next = if self.is_tumbling() {
            newest
        } else {
            let beyond = i128::from(time.micros()) - i128::from(self.size);
            floor(beyond, self.slide, self.offset) + step
        };
        if next < i128::from(i64::MIN) {
            // Before the first moment there is there are no windows, but the moment needs one.
            next = next.max(floor(i64::MIN.into(), self.slide, self.offset));
        }
        std::iter::from_fn(move || {
            let start = (next <= newest).then_some(next)?;
            next += step;
            Some(clamp(start))
        })
    }

    pub(crate) fn window(&self, start: Time) -> Window {
        Window::new(start, start + self.size())
    }

    /// The largest time that the window beginning at `start` can take.
    pub(crate) fn last(&self, start: Time) -> Time {
        clamp(i128::from(start.micros()) + i128::from(self.size) - 1)
    }

    /// Whether each moment is in exactly one window.
    pub(crate) fn is_tumbling(&self) -> bool {
        self.size == self.slide
    }

    /// The longest stretch that fits evenly into windows and slides.
    fn slice(&self) -> i64 {
        let mut one = self.size;
        let mut other = self.slide;
        while other != 0 {
            let rest = one % other;
            one = other;
            other = rest;
        }
        one
    }

    pub(crate) fn slice_of(&self, time: Time) -> Time {
        clamp(floor(time.micros().into(), self.slice(), self.offset))
    }

    /// The first window, beginning at `from` or later, that holds the slice.
    pub(crate) fn first_window_with(&self, slice: Time, from: Time) -> Option<Time> {
        let slice = i128::from(slice.micros());
        let covering = slice + i128::from(self.slice()) - i128::from(self.size);
        let bound = covering.max(from.micros().into());
        let below = floor(bound, self.slide, self.offset);
        let start = if below == bound {
            bound
        } else {
            below + i128::from(self.slide)
        };
        (start <= slice).then(|| clamp(start))
    }

    /// The last window that holds the slice.
    pub(crate) fn last_window_with(&self, slice: Time) -> Time {
        clamp(floor(slice.micros().into(), self.slide, self.offset))
    }

    /// The first moment at which a window may begin that is not closed at this watermark.
    pub(crate) fn first_open(&self, watermark: Time) -> Option<Time> {
        let after = i128::from(watermark.micros()) - i128::from(self.size) + 2;
        (watermark < Time::MAX).then(|| clamp(after))
    }
}

fn positive(name: &str, span: Span) -> Result<i64, ConfigError> {
    if span <= Span::ZERO {
        let text = "of a window must be at least 1 microsecond, got";
        return Err(ConfigError::new(format!(
            "the {name} {text} {}",
            span.micros()
        )));
    }
    Ok(span.micros())
}

fn floor(time: i128, step: i64, offset: i64) -> i128 {
    let since = time - i128::from(offset);
    // Almost every time is small enough for the fast division.
    let rest = match i64::try_from(since) {
        Ok(since) => i128::from(since.rem_euclid(step)),
        Err(_) => since.rem_euclid(i128::from(step)),
    };
    time - rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(aligned: Aligned, time: i64) -> Vec<i64> {
        aligned
            .windows(Time::from_micros(time))
            .map(|window| window.start.micros())
            .collect()
    }

    #[test]
    fn windows_before_1970_are_aligned_like_those_after_it() {
        let aligned = Aligned::tumbling(Span::from_micros(7)).unwrap();
        assert_eq!(starts(aligned.offset_by(Span::from_micros(3)), 2), [-4]);
        assert_eq!(starts(aligned, -7), [-7]);
        assert_eq!(starts(aligned, -8), [-14]);
    }

    #[test]
    fn the_ends_of_time_have_a_window() {
        let aligned = Aligned::hopping(Span::from_micros(10), Span::from_micros(3)).unwrap();
        for time in [Time::MIN, Time::MAX] {
            assert!(aligned.windows(time).count() > 0);
        }
        assert_eq!(aligned.last(Time::MAX), Time::MAX);
    }

    #[test]
    fn a_size_and_a_slide_of_zero_are_refused() {
        let some = Span::from_micros(1);
        for (size, slide) in [(Span::ZERO, some), (some, Span::ZERO)] {
            let refused = Aligned::hopping(size, slide).unwrap_err().to_string();
            assert!(refused.contains("at least 1 microsecond"), "{refused}");
        }
    }

    #[test]
    fn at_the_end_of_time_no_window_is_open() {
        let aligned = Aligned::tumbling(Span::from_micros(10)).unwrap();
        let before = Time::from_micros(i64::MAX - 1);
        assert!(aligned.first_open(before).is_some());
        assert_eq!(aligned.first_open(Time::MAX), None);
    }

    #[test]
    fn an_item_is_in_a_million_windows_and_no_more() {
        let hopping = |size| Aligned::hopping(Span::from_micros(size), Span::from_micros(3));
        assert!(hopping(3 * WINDOWS_MAX).is_ok());
        let refused = hopping(3 * WINDOWS_MAX + 1).unwrap_err().to_string();
        assert!(refused.contains("into 1000001 windows"), "{refused}");
    }

    #[test]
    fn a_slice_is_in_the_windows_that_hold_its_moments() {
        for (size, slide) in [(10, 5), (10, 3), (7, 7), (5, 10), (12, 8)] {
            let size = Span::from_micros(size);
            let aligned = Aligned::hopping(size, Span::from_micros(slide)).unwrap();
            let aligned = aligned.offset_by(Span::from_micros(2));
            for time in -30..30 {
                let time = Time::from_micros(time);
                let mut walked = Vec::new();
                let slice = aligned.slice_of(time);
                let mut from = Time::MIN;
                while let Some(start) = aligned.first_window_with(slice, from) {
                    walked.push(start);
                    from = start + Span::from_micros(1);
                }
                let direct: Vec<Time> = aligned.starts(time).collect();
                assert_eq!(walked, direct, "{aligned:?} {time:?}");
            }
        }
    }
}
