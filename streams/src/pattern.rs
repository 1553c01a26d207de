//! Patterns: one thing followed by another within a time, n times, or not at all.

use crate::{ConfigError, Span, Time};
use serde::{Deserialize, Serialize};
use std::{ops::Deref, sync::Arc};

mod detect;

pub use detect::Detect;

/// What to look for among the items of a key: steps in the order of event time, with anything in
/// between.
///
/// ```
/// use annals_streams::{Pattern, Span};
///
/// struct Login { ok: bool, country: &'static str }
///
/// let stolen = Pattern::times(3, |login: &Login| !login.ok)
///     .then(|before, login| login.ok && login.country != before[0].country)
///     .within(Span::from_micros(300_000_000));
/// ```
pub struct Pattern<T> {
    steps: Vec<Step<T>>,
    within: Option<Span>,
    skip: Skip,
}

struct Step<T> {
    wanted: bool,
    is: Test<T>,
}

impl<T> Clone for Pattern<T> {
    fn clone(&self) -> Self {
        Self {
            steps: self.steps.clone(),
            ..*self
        }
    }
}

impl<T> Clone for Step<T> {
    fn clone(&self) -> Self {
        Self {
            wanted: self.wanted,
            is: Arc::clone(&self.is),
        }
    }
}

/// Whether an item fits, given those that were matched before it.
type Test<T> = Arc<dyn Fn(&[T], &T) -> bool + Send + Sync>;

/// Which of the possible matches are reported.
///
/// ```
/// use annals_streams::Skip;
///
/// assert_eq!(Skip::default(), Skip::ToNext);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Skip {
    /// From each first item the match that takes the next item that fits, at each step.
    #[default]
    ToNext,
    /// All of them: at each step an item that fits may also be passed over. Mind how many these
    /// can be.
    ToAny,
    /// Like `ToNext`, but a match uses up everything that came up to its last item.
    PastLast,
}

impl<T> Pattern<T> {
    /// Begins with an item like this.
    ///
    /// ```
    /// # use annals_streams::Pattern;
    /// Pattern::first(|cents: &i64| *cents > 100_000);
    /// ```
    pub fn first(is: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        Self {
            steps: Vec::new(),
            within: None,
            skip: Skip::default(),
        }
        .then(move |_, item| is(item))
    }

    /// Begins with so many items like this.
    ///
    /// ```
    /// # use annals_streams::Pattern;
    /// Pattern::times(4, |_: &i64| true);
    /// ```
    pub fn times(n: usize, is: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self
    where
        T: 'static,
    {
        let is = Arc::new(is);
        let mut pattern = Self {
            steps: Vec::new(),
            within: None,
            skip: Skip::default(),
        };
        for _ in 0..n {
            let is = Arc::clone(&is);
            pattern = pattern.then(move |_, item| is(item));
        }
        pattern
    }

    /// Then an item like this, given those that were matched before it.
    ///
    /// ```
    /// # use annals_streams::Pattern;
    /// Pattern::first(|_: &i64| true).then(|before, item| *item > before[0]);
    /// ```
    #[must_use]
    pub fn then(self, is: impl Fn(&[T], &T) -> bool + Send + Sync + 'static) -> Self {
        self.step(true, is)
    }

    /// Nothing like this before the next step; as the last step: nothing like this until the time
    /// is over, which is then the match.
    ///
    /// ```
    /// # use annals_streams::{Pattern, Span};
    /// Pattern::first(|step: &char| *step == 'o')
    ///     .never(|_, step| *step == 's')
    ///     .within(Span::from_micros(7_200_000_000));
    /// ```
    #[must_use]
    pub fn never(self, is: impl Fn(&[T], &T) -> bool + Send + Sync + 'static) -> Self {
        self.step(false, is)
    }

    fn step(mut self, wanted: bool, is: impl Fn(&[T], &T) -> bool + Send + Sync + 'static) -> Self {
        self.steps.push(Step {
            wanted,
            is: Arc::new(is),
        });
        self
    }

    /// The last item comes less than this after the first one: exactly so much is too late.
    ///
    /// ```
    /// # use annals_streams::{Pattern, Span};
    /// Pattern::times(2, |_: &i64| true).within(Span::from_micros(5));
    /// ```
    #[must_use]
    pub fn within(mut self, time: impl Into<Span>) -> Self {
        self.within = Some(time.into());
        self
    }

    /// Which of the possible matches are reported.
    ///
    /// ```
    /// # use annals_streams::{Pattern, Skip};
    /// Pattern::times(2, |_: &i64| true).skipping(Skip::PastLast);
    /// ```
    #[must_use]
    pub fn skipping(mut self, skip: Skip) -> Self {
        self.skip = skip;
        self
    }

    /// What of it is a value: how many steps, which of them must not come, its time in
    /// microseconds (-1: none), and which matches are reported. Its conditions are functions.
    ///
    /// ```
    /// # use annals_streams::Pattern;
    /// assert_eq!(Pattern::first(|_: &i64| true).parameters()[0], ("steps", 1));
    /// ```
    pub fn parameters(&self) -> [(&'static str, i64); 4] {
        let never = self.steps.iter().rev();
        let never = never.fold(0, |bits: i64, step| bits << 1 | i64::from(!step.wanted));
        [
            ("steps", self.steps.len() as i64),
            ("never", never),
            ("within", self.within.map_or(-1, Span::micros)),
            ("skip", self.skip as i64),
        ]
    }

    fn check(self) -> Result<Self, ConfigError> {
        let begins = self.steps.first().is_some_and(|step| step.wanted);
        if !begins {
            return Err(ConfigError::new("a pattern must begin with an item"));
        }
        if self.within.is_some_and(|within| within <= Span::ZERO) {
            return Err(ConfigError::new(
                "the time of a pattern must be at least 1 microsecond",
            ));
        }
        if self.within.is_none() && self.ends_with_absence() {
            let text = "a pattern that ends with `never` needs `within`, or it would never end";
            return Err(ConfigError::new(text));
        }
        Ok(self)
    }

    fn ends_with_absence(&self) -> bool {
        self.steps.last().is_some_and(|step| !step.wanted)
    }

    /// The last moment that still belongs to a match that began at `first`.
    fn deadline(&self, first: Time) -> Option<Time> {
        self.within
            .map(|within| first + within - Span::from_micros(1))
    }

    /// The next step that wants an item, from this one on.
    fn next_wanted(&self, step: usize) -> Option<usize> {
        (step..self.steps.len()).find(|at| self.steps[*at].wanted)
    }
}

/// The items that matched, in the order of event time. It is the slice of them.
///
/// ```
/// use annals_streams::{Match, Time};
///
/// let found = Match { first: Time::from_micros(1), items: vec!["order"] };
/// assert_eq!(found.len(), 1);
/// assert_eq!(found[0], "order");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match<T> {
    /// The time of the first item.
    pub first: Time,
    /// The items; in an absence those that came before it.
    pub items: Vec<T>,
}

impl<T> Deref for Match<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}
