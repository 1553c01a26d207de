//! Patterns: one thing followed by another within a time, n times, or not at all.

use crate::{ConfigError, Span, Time};
use serde::{Deserialize, Serialize};

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

/// Whether an item fits, given those that were matched before it.
type Test<T> = Box<dyn Fn(&[T], &T) -> bool + Send + Sync>;

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
        let is = std::sync::Arc::new(is);
        let mut pattern = Self {
            steps: Vec::new(),
            within: None,
            skip: Skip::default(),
        };
        for _ in 0..n {
            let is = std::sync::Arc::clone(&is);
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
            is: Box::new(is),
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
    pub fn within(mut self, time: Span) -> Self {
        self.within = Some(time);
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

/// The items that matched, in the order of event time.
///
/// ```
/// use annals_streams::{Match, Time};
///
/// let found = Match { first: Time::from_micros(1), items: vec!["order"] };
/// assert_eq!(found.items.len(), 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match<T> {
    /// The time of the first item.
    pub first: Time,
    /// The items; in an absence those that came before it.
    pub items: Vec<T>,
}
