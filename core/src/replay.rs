//! Catch up, then follow: the log from a position onward, page by page, the next ones being read
//! while this one is used.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::{Failure, StoreError};
use crate::position::{Partition, Position};
use crate::query::Filter;
use crate::read::{LogPage, ReadLog};
use crate::store::{Hint, Store};
use crate::typed::{Event, Recorded, Undecodable};

/// The events of one partition of the log, about to be read. Without more: all that there are now,
/// oldest first.
///
/// ```
/// use annals_core::{Annals, Filter, Position};
///
/// # async fn example(db: Annals) -> Result<(), annals_core::StoreError> {
/// let mut pages = db
///     .events()
///     .after(Position::new(41))
///     .filter(Filter::default().category("account"))
///     .pages();
/// while let Some(page) = pages.next().await? {
///     for event in page.events {
///         println!("{} {}", event.position, event.event_type);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is read until its pages are asked for"]
pub struct Events {
    store: Arc<dyn Store>,
    read: ReadLog,
    follow: Option<Duration>,
}

impl Events {
    /// How long a follower waits for a hint before it looks by itself: a hint that was lost costs
    /// no more than this.
    pub const POLL: Duration = Duration::from_millis(250);

    /// Events in a page by default: enough that handing a page from thread to
    /// thread costs next to nothing.
    pub const PAGE_EVENTS: usize = 2_048;

    pub(crate) fn of(store: Arc<dyn Store>) -> Events {
        Events {
            store,
            read: ReadLog::after(Position::START).limit(Events::PAGE_EVENTS),
            follow: None,
        }
    }

    /// Of this partition. Default: the first.
    pub fn partition(mut self, partition: Partition) -> Events {
        self.read.partition = partition;
        self
    }

    /// After this position.
    pub fn after(mut self, position: Position) -> Events {
        self.read.after = position;
        self
    }

    /// Up to and with this position.
    pub fn up_to(mut self, position: Position) -> Events {
        self.read.up_to = position;
        self
    }

    /// Only what the filter lets through.
    pub fn filter(mut self, filter: Filter) -> Events {
        self.read.filter = filter;
        self
    }

    /// At most so many events in a page. Default: [`Events::PAGE_EVENTS`].
    pub fn page_events(mut self, count: usize) -> Events {
        self.read.limit = count.max(1);
        self
    }

    /// Goes on at the head: waits for what comes, and never ends by itself (but at
    /// [`up_to`](Events::up_to), if it was given).
    pub fn follow(self) -> Events {
        self.follow_polling(Events::POLL)
    }

    /// As [`follow`](Events::follow), looking at least every `poll` when no hint comes.
    pub fn follow_polling(mut self, poll: Duration) -> Events {
        self.follow = Some(poll);
        self
    }

    /// As pages of bytes.
    pub fn pages(self) -> Pages {
        let hint = self.store.hint();
        Pages {
            store: self.store,
            read: self.read,
            follow: self.follow,
            hint,
            ahead: None,
            ended: false,
        }
    }

    /// As pages of typed events; others than those of `E` are not even read.
    ///
    /// ```
    /// # use annals_core::{Annals, Event, ReplayError};
    /// # async fn example<AccountEvent: Event + std::fmt::Debug>(
    /// #     db: Annals
    /// # ) -> Result<(), ReplayError> {
    /// let mut pages = db.events().typed::<AccountEvent>();
    /// while let Some(events) = pages.next().await? {
    ///     for event in events {
    ///         println!("{}: {:?}", event.record.stream, event.event);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn typed<E: Event>(mut self) -> TypedPages<E> {
        if self.read.filter.types.is_empty() {
            let mut types: Vec<&str> = E::shapes().iter().map(|shape| shape.event_type).collect();
            types.sort_unstable();
            types.dedup();
            self.read.filter = self.read.filter.types(types);
        }
        TypedPages {
            pages: self.pages(),
            event: PhantomData,
        }
    }
}

/// Pages of the log, oldest first. Dropping it ends the reading; dropping the future of
/// [`next`](Pages::next) loses nothing.
#[derive(Debug)]
pub struct Pages {
    store: Arc<dyn Store>,
    read: ReadLog,
    follow: Option<Duration>,
    hint: Hint,
    ahead: Option<Ahead>,
    ended: bool,
}

impl Pages {
    /// The next page; `None` at the end. A page may hold no event and only say how far the log was
    /// looked through.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer; asking again goes on where it was.
    pub async fn next(&mut self) -> Result<Option<LogPage>, StoreError> {
        while !self.ended {
            // Forgotten before the read: a hint that comes during it may be about what it did not
            // see.
            self.hint.reset();
            let page = self.read_ahead().await?;
            let moved = page.scanned > self.read.after;
            self.read.after = self.read.after.max(page.scanned);
            let more = is_more(&self.read, &page);
            self.ended = self.read.after >= self.read.up_to || (page.end && self.follow.is_none());
            if !more {
                self.ahead = None;
            } else if self.ahead.is_none() {
                self.ahead = Some(Ahead::start(Arc::clone(&self.store), self.read.clone()));
            }
            if moved || !page.events.is_empty() {
                return Ok(Some(page));
            }
            if let (Some(poll), false) = (self.follow, self.ended) {
                self.hint.wait(poll).await;
            }
        }
        Ok(None)
    }

    /// The position after which the next page begins.
    pub const fn after(&self) -> Position {
        self.read.after
    }

    async fn read_ahead(&mut self) -> Result<LogPage, StoreError> {
        let Some(ahead) = &mut self.ahead else {
            return self.store.read(self.read.clone()).await;
        };
        // Received in place, so that a dropped future leaves the page to the next call.
        let page = ahead.pages.recv().await.unwrap_or_else(|| {
            Err(StoreError::new(
                Failure::Unavailable,
                "a read of the log was aborted",
            ))
        });
        if page.is_err() {
            self.ahead = None;
        }
        page
    }
}

/// Whether the log goes on after the page, as far as the page knows.
fn is_more(read: &ReadLog, page: &LogPage) -> bool {
    !page.end && page.scanned < read.up_to
}

/// A task that reads ahead of those who use the pages, up to where the log ends: one page waits for
/// them, the next ones are being read.
#[derive(Debug)]
struct Ahead {
    pages: mpsc::Receiver<Result<LogPage, StoreError>>,
    task: JoinHandle<()>,
}

impl Ahead {
    fn start(store: Arc<dyn Store>, read: ReadLog) -> Ahead {
        let (sender, pages) = mpsc::channel(1);
        let reading = Reading {
            store,
            read,
            windows: VecDeque::new(),
        };
        Ahead {
            pages,
            task: tokio::spawn(reading.send_to(sender)),
        }
    }
}

/// One page after the other. Where the log holds little but what is wanted, it is known where the
/// next page begins before this one is there, so two are asked for at once: a store on a server
/// works while an answer of it is read.
#[derive(Debug)]
struct Reading {
    store: Arc<dyn Store>,
    read: ReadLog,
    windows: VecDeque<Window>,
}

impl Reading {
    /// Pages that are asked for at once.
    const WINDOWS: usize = 2;

    async fn send_to(mut self, pages: mpsc::Sender<Result<LogPage, StoreError>>) {
        loop {
            let page = self.next().await;
            let more = page.as_ref().is_ok_and(|page| is_more(&self.read, page));
            if pages.send(page).await.is_err() || !more {
                return;
            }
        }
    }

    async fn next(&mut self) -> Result<LogPage, StoreError> {
        let mut page = match self.windows.pop_front() {
            Some(mut window) => {
                let page = window.page().await?;
                if page.scanned < window.up_to {
                    // It was cut, because its payloads are large: what is asked for after it comes
                    // too early.
                    self.windows.clear();
                }
                page
            }
            None => self.store.read(self.read.clone()).await?,
        };
        // A window ends where it ends, the log goes on.
        page.end &= page.scanned >= self.read.up_to.min(page.head.visible);
        let looked_at = page.scanned.get().saturating_sub(self.read.after.get());
        self.read.after = self.read.after.max(page.scanned);
        let is_dense = page.events.len() as u64 >= looked_at.div_ceil(2)
            && looked_at >= self.read.limit as u64;
        while is_dense
            && self.windows.len() < Reading::WINDOWS
            && self.ask(page.head.visible.min(self.read.up_to))
        {}
        Ok(page)
    }

    /// Asks for the next whole window, if the log has as much.
    fn ask(&mut self, end: Position) -> bool {
        let after = self
            .windows
            .back()
            .map_or(self.read.after, |window| window.up_to);
        let up_to = Position::new(after.get().saturating_add(self.read.limit as u64));
        if up_to > end {
            return false;
        }
        let store = Arc::clone(&self.store);
        let read = ReadLog {
            after,
            up_to,
            ..self.read.clone()
        };
        let task = tokio::spawn(async move { store.read(read).await });
        self.windows.push_back(Window { up_to, task });
        true
    }
}

/// A page that is being read: of all positions up to one.
#[derive(Debug)]
struct Window {
    up_to: Position,
    task: JoinHandle<Result<LogPage, StoreError>>,
}

impl Window {
    async fn page(&mut self) -> Result<LogPage, StoreError> {
        (&mut self.task).await.unwrap_or_else(|_| {
            Err(StoreError::new(
                Failure::Unavailable,
                "a read of the log was aborted",
            ))
        })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Pages of typed events.
pub struct TypedPages<E> {
    pages: Pages,
    event: PhantomData<fn() -> E>,
}

impl<E: Event> TypedPages<E> {
    /// The next page; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`ReplayError::Undecodable`] for an event that the type cannot read. Nothing of its page is
    /// given.
    pub async fn next(&mut self) -> Result<Option<Vec<Recorded<E>>>, ReplayError> {
        let Some(page) = self.pages.next().await? else {
            return Ok(None);
        };
        let mut events = Vec::with_capacity(page.events.len());
        for record in page.events {
            Recorded::decode_onto(record, &mut events)?;
        }
        Ok(Some(events))
    }

    /// The position after which the next page begins.
    pub const fn after(&self) -> Position {
        self.pages.after()
    }
}

impl<E> fmt::Debug for TypedPages<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedPages").field(&self.pages).finish()
    }
}

/// Why a replay stopped.
///
/// ```
/// # fn example(error: annals_core::ReplayError) {
/// println!("{error}");
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// An event cannot be read.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::append::Append;
    use crate::event::NewEvent;
    use crate::memory::MemoryStore;
    use crate::store::{EventStore, Log};
    use crate::stream::StreamId;

    async fn append(store: &MemoryStore, name: &'static str, count: usize) {
        let events = (0..count).map(|_| NewEvent::json(name, b"1".as_slice()));
        store
            .append(Append::new(StreamId::new("a-1").unwrap(), events))
            .await
            .unwrap();
    }

    async fn positions(pages: &mut Pages, wanted: usize) -> Vec<u64> {
        let mut found = Vec::new();
        while found.len() < wanted {
            let Some(page) = pages.next().await.unwrap() else {
                break;
            };
            found.extend(page.events.iter().map(|event| event.position.get()));
        }
        found
    }

    #[tokio::test]
    async fn a_replay_gives_everything_once_and_ends() {
        let store = MemoryStore::new();
        append(&store, "t", 10).await;
        for page_events in [1, 3, 9, 10, 11] {
            let mut pages = Events::of(Arc::new(store.clone()))
                .after(Position::new(2))
                .page_events(page_events)
                .pages();
            assert_eq!(
                positions(&mut pages, usize::MAX).await,
                (3..=10).collect::<Vec<_>>(),
                "{page_events}"
            );
        }
    }

    #[tokio::test]
    async fn pages_that_are_read_at_once_come_in_their_order() {
        let store = MemoryStore::new();
        for n in 0..300 {
            append(
                &store,
                if n % 100 < 70 { "common" } else { "other" },
                1 + n % 3,
            )
            .await;
        }
        let last = store.head(Partition(0)).await.unwrap().visible;
        for (types, up_to) in [
            (&[][..], last),
            (&["common"], last),
            (&["common", "other"], Position::new(333)),
            (&["other"], last),
        ] {
            for page_events in [1, 2, 7, 50, 1_000] {
                let read = |limit| {
                    let filter = Filter::default().types(types.iter().copied());
                    Events::of(Arc::new(store.clone()))
                        .filter(filter)
                        .up_to(up_to)
                        .page_events(limit)
                        .pages()
                };
                let whole = positions(&mut read(usize::MAX), usize::MAX).await;
                assert_eq!(
                    positions(&mut read(page_events), usize::MAX).await,
                    whole,
                    "{types:?} by {page_events}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_follower_goes_on_with_what_comes() {
        let store = MemoryStore::new();
        append(&store, "t", 3).await;
        let mut pages = Events::of(Arc::new(store.clone()))
            .follow_polling(Duration::from_secs(3600))
            .pages();
        assert_eq!(positions(&mut pages, 3).await, [1, 2, 3]);
        let waiting = tokio::spawn(async move { (positions(&mut pages, 2).await, pages) });
        append(&store, "t", 2).await;
        let (found, mut pages) = waiting.await.unwrap();
        assert_eq!(found, [4, 5]);
        // A future that was dropped while waiting loses nothing.
        assert!(futures_poll_once(pages.next()).await);
        append(&store, "t", 1).await;
        assert_eq!(positions(&mut pages, 1).await, [6]);
    }

    #[tokio::test]
    async fn a_filtered_follower_says_how_far_it_has_looked() {
        let store = MemoryStore::new();
        append(&store, "other", 7).await;
        let filter = Filter::default().types(["wanted"]);
        let mut pages = Events::of(Arc::new(store.clone()))
            .filter(filter)
            .up_to(Position::new(9))
            .follow()
            .pages();
        let page = pages.next().await.unwrap().unwrap();
        assert_eq!((page.events.len(), pages.after()), (0, Position::new(7)));
        append(&store, "wanted", 2).await;
        assert_eq!(positions(&mut pages, 2).await, [8, 9]);
        assert!(
            pages.next().await.unwrap().is_none(),
            "the end that was asked for is an end for a follower too"
        );
    }

    /// Polls once and drops; whether it was still waiting.
    async fn futures_poll_once<F: Future>(future: F) -> bool {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(future.as_mut().poll(context).is_pending())
        })
        .await
    }
}
