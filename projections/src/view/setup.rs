//! How a view is kept: asynchronously, inline or live, and with which options.

use std::fmt;
use std::marker::PhantomData;

use super::View;
use crate::lifecycle::Lifecycle;
use crate::options::Options;

/// What keeps a view up to date: the view, and how its workers work.
///
/// ```
/// # use annals_projections::{Options, ViewSetup, View};
/// # fn example<Balance: View>() -> ViewSetup<Balance> {
/// ViewSetup::<Balance>::new().options(Options::default().slots(4))
/// # }
/// ```
pub struct ViewSetup<V: View> {
    pub(crate) options: Options,
    pub(crate) lifecycle: Lifecycle,
    // Followed where it is, and never begun.
    pub(crate) previously: bool,
    view: PhantomData<fn() -> V>,
}

impl<V: View> ViewSetup<V> {
    /// With the default options.
    pub fn new() -> ViewSetup<V> {
        ViewSetup {
            options: Options::default(),
            lifecycle: Lifecycle::Async,
            previously: false,
            view: PhantomData,
        }
    }

    /// Folded before the append of a command, and written in its transaction: a reader that asks
    /// after a command sees it, without waiting.
    ///
    /// For views keyed by the id of one category of streams, kept in the store of the log. A row
    /// is written with what this program's commands and decisions append. What other programs
    /// append to the stream is followed by a worker, and [`get`](crate::ViewHandle::get) folds what
    /// a row lacks when it reads it; readers of several rows wait for other programs' writes with
    /// `at_least`. A fold that reads the position or the recorded time of an event is left to the
    /// worker: they are not known before the append.
    ///
    /// Each command reads the row and writes it. Changing between this and the default builds a new
    /// generation when the program starts.
    ///
    /// ```
    /// # use annals_projections::{ViewSetup, View};
    /// # fn example<Balance: View>() -> ViewSetup<Balance> {
    /// ViewSetup::<Balance>::new().inline()
    /// # }
    /// ```
    #[must_use]
    pub fn inline(mut self) -> ViewSetup<V> {
        self.lifecycle = Lifecycle::Inline;
        self
    }

    /// Folded from the log when it is asked, and kept nowhere: for views that are seldom asked, and
    /// for trying out a fold.
    ///
    /// Every query reads all events of the view's types up to its moment, whatever it asks for, and
    /// keeps in memory the rows that it asks for. Nothing can be watched, and there is no
    /// [`history`](crate::ViewHandle::history) of a row.
    ///
    /// ```
    /// # use annals_projections::{ViewSetup, View};
    /// # fn example<Balance: View>() -> ViewSetup<Balance> {
    /// ViewSetup::<Balance>::new().live()
    /// # }
    /// ```
    #[must_use]
    pub fn live(mut self) -> ViewSetup<V> {
        self.lifecycle = Lifecycle::Live;
        self
    }

    /// As [`live`](ViewSetup::live), for views whose every event changes the row of its own stream
    /// and no other: rows that are asked for by their keys are each folded from one stream. An
    /// event that changes another row is an error of the query.
    ///
    /// ```
    /// # use annals_projections::{ViewSetup, View};
    /// # fn example<Balance: View>() -> ViewSetup<Balance> {
    /// ViewSetup::<Balance>::new().live_by_stream()
    /// # }
    /// ```
    #[must_use]
    pub fn live_by_stream(mut self) -> ViewSetup<V> {
        self.lifecycle = Lifecycle::LiveByStream;
        self
    }

    /// As the projection of an older version of a view that is registered too: it is followed and
    /// answers as long as one of its generations is there, and none is begun. So readers of the old
    /// version are served while the new one is built.
    ///
    /// ```
    /// # use annals_projections::{ViewSetup, View};
    /// # fn example<BalanceV1: View>() -> ViewSetup<BalanceV1> {
    /// BalanceV1::projection().previously()
    /// # }
    /// ```
    #[must_use]
    pub fn previously(mut self) -> ViewSetup<V> {
        self.previously = true;
        self
    }

    /// With these options.
    #[must_use]
    pub fn options(mut self, options: Options) -> ViewSetup<V> {
        self.options = options;
        self
    }
}

impl<V: View> Default for ViewSetup<V> {
    fn default() -> ViewSetup<V> {
        ViewSetup::new()
    }
}

impl<V: View> fmt::Debug for ViewSetup<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewSetup")
            .field("view", &V::NAME)
            .field("lifecycle", &self.lifecycle)
            .finish_non_exhaustive()
    }
}
