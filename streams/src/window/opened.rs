//! Tumbling or hopping windows that take items: those that are open, and those that have closed
//! and are not past their lateness.

use crate::{
    Aligned, Span, Time,
    due::{is_closed, is_late},
};
use std::vec::Drain;

/// What is kept of each such window.
pub(crate) struct OpenWindows<M> {
    aligned: Aligned,
    lateness: Span,
    next_due: Time,
    /// By start.
    windows: Vec<Opened<M>>,
}

pub(crate) struct Opened<M> {
    pub(crate) start: Time,
    pub(crate) last: Time,
    pub(crate) told: bool,
    pub(crate) keys: M,
}

impl<M> OpenWindows<M> {
    pub(crate) fn new(aligned: Aligned, lateness: Span) -> Self {
        Self {
            aligned,
            lateness,
            next_due: Time::MAX,
            windows: Vec::new(),
        }
    }

    pub(crate) fn next_due(&self) -> Time {
        self.next_due
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Opened<M>> {
        self.windows.iter()
    }

    /// The window that begins there. One that is not there is opened with these keys.
    pub(crate) fn open(
        &mut self,
        start: Time,
        watermark: Time,
        keys: impl FnOnce() -> M,
    ) -> &mut Opened<M> {
        // Most items belong to the newest windows.
        let found = self.windows.iter().rposition(|of| of.start == start);
        let at = match found {
            Some(at) => at,
            None => {
                let at = self.windows.partition_point(|of| of.start < start);
                let last = self.aligned.last(start);
                let opened = Opened {
                    start,
                    last,
                    told: is_closed(watermark, last),
                    keys: keys(),
                };
                self.windows.insert(at, opened);
                self.find_next_due();
                at
            }
        };
        &mut self.windows[at]
    }

    pub(crate) fn find(&self, start: Time) -> Option<&Opened<M>> {
        let found = self.windows.binary_search_by_key(&start, |of| of.start);
        self.windows.get(found.ok()?)
    }

    pub(crate) fn find_mut(&mut self, start: Time) -> Option<&mut Opened<M>> {
        let found = self.windows.binary_search_by_key(&start, |of| of.start);
        self.windows.get_mut(found.ok()?)
    }

    /// Those that have closed without being told.
    pub(crate) fn closing(&mut self, watermark: Time) -> impl Iterator<Item = &mut Opened<M>> {
        let windows = self.windows.iter_mut();
        windows.filter(move |of| !of.told && is_closed(watermark, of.last))
    }

    /// Takes out those that are past their lateness.
    pub(crate) fn expire(&mut self, watermark: Time) -> Drain<'_, Opened<M>> {
        let late = self
            .windows
            .iter()
            .take_while(|of| is_late(watermark, of.last, self.lateness));
        let count = late.count();
        self.windows.drain(..count)
    }

    pub(crate) fn find_next_due(&mut self) {
        let oldest = self.windows.first().filter(|of| of.told);
        let expiry = oldest.map(|of| of.last + self.lateness);
        let closing = self.windows.iter().find(|of| !of.told).map(|of| of.last);
        let next = expiry.into_iter().chain(closing).min();
        self.next_due = next.unwrap_or(Time::MAX);
    }

    /// All are back: which of them were told follows from the watermark.
    pub(crate) fn resume(&mut self, watermark: Time) {
        for opened in &mut self.windows {
            opened.told = is_closed(watermark, opened.last);
        }
        self.find_next_due();
    }
}
