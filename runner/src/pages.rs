//! Pages of the log that several slots of a projection read: each is read, and made into what slots
//! work on, once in a process.
//!
//! The first slot that asks for a page makes it, and the others are given the same. A slot that is
//! somewhere else is given a page that holds its place, so that slots meet. A slot that is too far
//! away makes his own.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_core::{GenerationId, LogPage, Position, ReadLog, Store, StoreError};
use tokio::sync::OnceCell;

use crate::worker::Slot;

/// Pages that are kept for slots that come to them later.
const KEPT: usize = 8;

/// What is made of a page of the log, for all slots.
pub trait SharedPage: Send + Sync {
    /// How far the log was looked through.
    fn scanned(&self) -> Position;

    /// Whether that was the head.
    fn is_end(&self) -> bool;

    /// Whether what belongs to this slot is in it. Default: yes.
    fn is_for(&self, slot: u16) -> bool {
        let _ = slot;
        true
    }
}

impl SharedPage for LogPage {
    fn scanned(&self) -> Position {
        self.scanned
    }

    fn is_end(&self) -> bool {
        self.end
    }
}

type Reading<P> = Arc<OnceCell<Arc<P>>>;

/// The pages that were made last.
pub struct Pages<P>(Mutex<VecDeque<Kept<P>>>);

struct Kept<P> {
    generation: GenerationId,
    read: ReadLog,
    reading: Reading<P>,
}

impl<P> Default for Pages<P> {
    fn default() -> Pages<P> {
        Pages(Mutex::default())
    }
}

impl<P> fmt::Debug for Pages<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

impl<P: SharedPage> Pages<P> {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept<P>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is made of this read of the log, now or since a slot [began](Pages::forget). It may
    /// begin before the read, with events that the slot has passed.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn read(
        &self,
        slot: &Slot,
        read: ReadLog,
        make: impl Fn(LogPage) -> P,
    ) -> Result<Arc<P>, StoreError> {
        let log = &**slot.context.log();
        let of = (slot.generation.id, slot.number);
        if slot.generation.spec.slots < 2 {
            return Ok(Arc::new(make(log.read(read).await?)));
        }
        self.read_of(log, of, read, make).await
    }

    async fn read_of(
        &self,
        log: &dyn Store,
        (generation, slot): (GenerationId, u16),
        read: ReadLog,
        make: impl Fn(LogPage) -> P,
    ) -> Result<Arc<P>, StoreError> {
        let (reading, is_first) = self.reading(generation, &read);
        let made = async || Ok(Arc::new(make(log.read(read.clone()).await?)));
        let page = match reading.get_or_try_init(made).await {
            Ok(page) => Arc::clone(page),
            Err(error) => {
                self.leave(&reading);
                return Err(error);
            }
        };
        // What follows the end is there at any moment: who came later may not miss it.
        if page.is_end() {
            self.leave(&reading);
        }
        if is_first || !page.is_end() && page.is_for(slot) {
            return Ok(page);
        }
        made().await
    }

    /// A log may have been restored: what was read before is not given to a slot that begins.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// The page of a read, and whether it has to be made first.
    fn reading(&self, generation: GenerationId, read: &ReadLog) -> (Reading<P>, bool) {
        let mut kept = self.lock();
        let found = kept
            .iter()
            .find(|of| of.generation == generation && of.holds(read));
        if let Some(of) = found {
            return (Arc::clone(&of.reading), false);
        }
        if kept.len() == KEPT {
            kept.pop_front();
        }
        let reading = Reading::default();
        kept.push_back(Kept {
            generation,
            read: read.clone(),
            reading: Arc::clone(&reading),
        });
        (reading, true)
    }

    fn leave(&self, reading: &Reading<P>) {
        self.lock().retain(|of| !Arc::ptr_eq(&of.reading, reading));
    }
}

impl<P: SharedPage> Kept<P> {
    /// Whether it answers this read: it is the same, or goes on after where that begins.
    fn holds(&self, read: &ReadLog) -> bool {
        if self.read == *read {
            return true;
        }
        let after = self.read.after;
        let mut moved = self.read.clone();
        moved.after = read.after;
        let is_in = |page: &Arc<P>| !page.is_end() && (after..page.scanned()).contains(&read.after);
        moved == *read && self.reading.get().is_some_and(is_in)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use annals_core::conformance::faulty::{Call, FaultyStore, StoreFault};
    use annals_core::{Append, EventStore, MemoryStore, NewEvent, Position, StreamId};

    use super::*;

    #[derive(Debug, Default)]
    struct CountsReads(AtomicUsize);

    #[async_trait::async_trait]
    impl StoreFault for CountsReads {
        async fn before(&self, call: Call) -> Result<(), StoreError> {
            if call == Call::ReadLog {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }
    }

    async fn append(store: &MemoryStore, events: usize) {
        let events = (0..events).map(|_| NewEvent::json("counted", b"1".as_slice()));
        let stream = StreamId::new("counter-1").unwrap();
        store.append(Append::new(stream, events)).await.unwrap();
    }

    /// What of a page is after where a slot is.
    fn positions_after(page: &LogPage, after: Position) -> Vec<u64> {
        let positions = page.events.iter().map(|of| of.position);
        positions
            .filter(|position| *position > after)
            .map(Position::get)
            .collect()
    }

    #[tokio::test]
    async fn slots_at_one_place_read_a_page_once() {
        let memory = MemoryStore::new();
        append(&memory, 25).await;
        let store = FaultyStore::new(Arc::new(memory.clone()), CountsReads::default());
        let reads = || store.fault().0.load(Ordering::Relaxed);
        let pages = Pages::<LogPage>::default();
        let slot = (GenerationId(1), 0);
        let read = async |read: ReadLog| {
            let from = read.after;
            let page = pages.read_of(&*store, slot, read, |page| page).await;
            positions_after(&page.unwrap(), from)
        };
        let from = |position| ReadLog::after(Position::new(position)).limit(10);
        for _ in 0..3 {
            let page = read(from(0)).await;
            assert_eq!(page.len(), 10);
        }
        assert_eq!(reads(), 1);
        // Somewhere within the page: what is left of it, up to where the others are.
        let rest = read(from(7)).await;
        assert_eq!((rest, reads()), (vec![8, 9, 10], 1));
        // The end is asked for by each, because there may be more by then.
        assert_eq!(read(from(20)).await.len(), 5);
        append(&memory, 1).await;
        assert_eq!(read(from(20)).await.len(), 6);
        assert_eq!(reads(), 3);
        pages.forget();
        read(from(0)).await;
        assert_eq!(reads(), 4);
    }
}
