//! When windows speak: on close, on update or both, with corrections and retractions, in one
//! order of rows.

use crate::{Output, Panic, Span, Time, Window};
use serde::{Deserialize, Serialize};

/// When a window emits.
///
/// ```
/// use annals_streams::Emit;
///
/// assert!(Emit::OnUpdateAndClose.on_update());
/// assert!(Emit::OnUpdateAndClose.on_close());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Emit {
    /// Once, when it closes.
    #[default]
    OnClose,
    /// At each item.
    OnUpdate,
    /// At each item, and once more when it closes.
    OnUpdateAndClose,
}

impl Emit {
    /// Whether each item is answered.
    ///
    /// ```
    /// # use annals_streams::Emit;
    /// assert!(!Emit::OnClose.on_update());
    /// ```
    pub fn on_update(self) -> bool {
        self != Emit::OnClose
    }

    /// Whether closing is told.
    ///
    /// ```
    /// # use annals_streams::Emit;
    /// assert!(!Emit::OnUpdate.on_close());
    /// ```
    pub fn on_close(self) -> bool {
        self != Emit::OnUpdate
    }
}

/// How windows treat time and what they emit.
///
/// ```
/// use annals_streams::{Span, WindowOptions};
///
/// let options = WindowOptions::on_close().allow_late(Span::from_micros(60_000_000));
/// assert_eq!(options.lateness, Span::from_micros(60_000_000));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WindowOptions {
    /// When results come out.
    pub emit: Emit,
    /// How long a closed window still takes items, correcting its result.
    pub lateness: Span,
    /// Whether a window starts again after each result, so that results add up.
    pub discarding: bool,
}

impl WindowOptions {
    /// One result when a window closes, and nothing late.
    ///
    /// ```
    /// # use annals_streams::{Emit, WindowOptions};
    /// assert_eq!(WindowOptions::on_close().emit, Emit::OnClose);
    /// ```
    pub fn on_close() -> Self {
        Self::default()
    }

    /// A result at each item.
    ///
    /// ```
    /// # use annals_streams::{Emit, WindowOptions};
    /// assert_eq!(WindowOptions::on_update().emit, Emit::OnUpdate);
    /// ```
    pub fn on_update() -> Self {
        Self {
            emit: Emit::OnUpdate,
            ..Self::default()
        }
    }

    /// A result at each item and a last one when the window closes.
    ///
    /// ```
    /// # use annals_streams::{Emit, WindowOptions};
    /// assert_eq!(WindowOptions::on_update_and_close().emit, Emit::OnUpdateAndClose);
    /// ```
    pub fn on_update_and_close() -> Self {
        Self {
            emit: Emit::OnUpdateAndClose,
            ..Self::default()
        }
    }

    /// Closed windows take items for so long, and each is a correction. Negative is none.
    ///
    /// ```
    /// # use annals_streams::{Span, WindowOptions};
    /// let never = WindowOptions::on_close().allow_late(Span::from_micros(-1));
    /// assert_eq!(never.lateness, Span::ZERO);
    /// ```
    #[must_use]
    pub fn allow_late(mut self, lateness: Span) -> Self {
        self.lateness = lateness.max(Span::ZERO);
        self
    }

    /// After a result the window starts again; nothing is retracted. Sliding windows share their
    /// items and cannot do this.
    ///
    /// ```
    /// # use annals_streams::WindowOptions;
    /// assert!(WindowOptions::on_close().discarding().discarding);
    /// ```
    #[must_use]
    pub fn discarding(mut self) -> Self {
        self.discarding = true;
        self
    }

    /// The value of a result. It is taken out of a window that `goes` or starts again.
    pub(crate) fn value_of<A: Clone>(self, value: &mut Option<A>, goes: bool) -> Option<A> {
        if goes || self.discarding {
            value.take()
        } else {
            value.clone()
        }
    }
}

/// What a result of a window is.
///
/// ```
/// use annals_streams::Kind;
///
/// assert!(Kind::Correction.is_final());
/// assert!(!Kind::Update.is_final());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// The window is open: more may come.
    Update,
    /// The window closed.
    Final,
    /// The window had closed, and a late item changed it.
    Correction,
    /// What was reported for this window no longer holds: it became part of a larger session.
    Retraction,
}

impl Kind {
    /// Whether the window had closed.
    ///
    /// ```
    /// # use annals_streams::Kind;
    /// assert!(Kind::Final.is_final());
    /// ```
    pub fn is_final(self) -> bool {
        matches!(self, Kind::Final | Kind::Correction)
    }

    /// Of a result at an item.
    pub(crate) fn at_item(has_closed: bool) -> Self {
        if has_closed {
            Kind::Correction
        } else {
            Kind::Update
        }
    }
}

/// A result of a window.
///
/// ```
/// use annals_streams::{Emission, Kind, Time, Window};
///
/// let result = Emission {
///     key: "tea",
///     window: Window::new(Time::from_micros(0), Time::from_micros(60)),
///     kind: Kind::Final,
///     value: Some(3),
///     max_time: Time::from_micros(41),
/// };
/// assert_eq!(result.value, Some(3));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emission<K, A> {
    /// Whose window.
    pub key: K,
    /// The window.
    pub window: Window,
    /// What this says.
    pub kind: Kind,
    /// The accumulator; nothing in a retraction.
    pub value: Option<A>,
    /// The largest event time that was folded.
    pub max_time: Time,
}

/// An item that missed windows, all or some.
///
/// ```
/// use annals_streams::{Late, Time, Window};
///
/// let missed = vec![Window::new(Time::from_micros(0), Time::from_micros(60))];
/// let late = Late { key: "tea", item: 3, missed, folded: false };
/// assert!(!late.folded);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late<K, T> {
    /// Whose.
    pub key: K,
    /// The item.
    pub item: T,
    /// The windows that were past their lateness. Count these; each is a pair that was missed.
    pub missed: Vec<Window>,
    /// Whether other windows still took it. Only what no window took is late as a record.
    pub folded: bool,
}

impl<K: Clone, T: Clone> Late<K, T> {
    pub(crate) fn of((key, item): &(K, T), missed: Vec<Window>, folded: bool) -> Self {
        Self {
            key: key.clone(),
            item: item.clone(),
            missed,
            folded,
        }
    }
}

/// Results that closed with one watermark, brought into the one order before they leave.
pub(crate) struct Closing<K, A>(Vec<(Time, Emission<K, A>, Option<Panic>)>);

impl<K: Ord, A> Closing<K, A> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn add(&mut self, last: Time, emission: Emission<K, A>) {
        self.0.push((last, emission, None));
    }

    /// A result that could not be put together.
    pub(crate) fn lack(&mut self, last: Time, emission: Emission<K, A>, panic: Panic) {
        self.0.push((last, emission, Some(panic)));
    }

    /// By the last moment, then the start, then the key.
    pub(crate) fn emit_into<L>(mut self, out: &mut Output<Emission<K, A>, L>) {
        self.0
            .sort_unstable_by(|(one_last, one, _), (other_last, other, _)| {
                let windows = (one_last, one.window).cmp(&(other_last, other.window));
                windows.then_with(|| one.key.cmp(&other.key))
            });
        for (last, emission, panic) in self.0 {
            match panic {
                None => out.emit(last, emission),
                Some(panic) => out.lack(last, emission, panic),
            }
        }
    }
}
