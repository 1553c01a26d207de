//! Pages of the log that several slots of a projection read: each is read once in a process.
//!
//! The first slot that asks for a page reads it, and the others are given the same. A slot that is
//! somewhere else is given the rest of a page in which it stands, so that slots meet. Whoever is
//! too far away reads by itself.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_core::{LogPage, ReadLog, Store, StoreError};
use tokio::sync::OnceCell;

/// Pages that are kept for slots that come to them later.
const KEPT: usize = 8;

type Reading = Arc<OnceCell<Arc<LogPage>>>;

/// The pages that were read last.
#[derive(Debug, Default)]
pub(crate) struct Pages(Mutex<VecDeque<(ReadLog, Reading)>>);

impl Pages {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(ReadLog, Reading)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this read of the log gives, now or since a slot [began](Pages::forget).
    pub(crate) async fn read(&self, log: &dyn Store, read: ReadLog) -> Result<LogPage, StoreError> {
        let (reading, is_first) = self.reading(&read);
        let page = reading.get_or_try_init(|| async { log.read(read.clone()).await.map(Arc::new) });
        let page = match page.await {
            Ok(page) => Arc::clone(page),
            Err(error) => {
                self.leave(&reading);
                return Err(error);
            }
        };
        if !page.end {
            return Ok(from(&page, &read));
        }
        // What follows the end is there at any moment: who came later may not miss it.
        self.leave(&reading);
        if is_first {
            return Ok(from(&page, &read));
        }
        log.read(read).await
    }

    /// A log may have been restored: what was read before is not given to a slot that begins.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    /// The page of a read, and whether it has to be read first.
    fn reading(&self, read: &ReadLog) -> (Reading, bool) {
        let mut kept = self.lock();
        let found = kept.iter().find(|(of, reading)| holds(of, reading, read));
        if let Some((_, reading)) = found {
            return (Arc::clone(reading), false);
        }
        if kept.len() == KEPT {
            kept.pop_front();
        }
        let reading = Reading::default();
        kept.push_back((read.clone(), Arc::clone(&reading)));
        (reading, true)
    }

    fn leave(&self, reading: &Reading) {
        self.lock().retain(|(_, of)| !Arc::ptr_eq(of, reading));
    }
}

/// Whether a read is answered by another one: by the same, or by a page that goes on after it.
fn holds(of: &ReadLog, reading: &Reading, read: &ReadLog) -> bool {
    if of == read {
        return true;
    }
    let mut moved = of.clone();
    moved.after = read.after;
    let is_in = |page: &Arc<LogPage>| !page.end && (of.after..page.scanned).contains(&read.after);
    moved == *read && reading.get().is_some_and(is_in)
}

/// What of a page is after where a read begins.
fn from(page: &LogPage, read: &ReadLog) -> LogPage {
    let first = page.events.partition_point(|of| of.position <= read.after);
    let removed = page.removed.iter();
    LogPage {
        events: page.events[first..].to_vec(),
        removed: removed.filter(|of| of.last > read.after).cloned().collect(),
        scanned: page.scanned,
        end: page.end,
        head: page.head,
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

    fn positions(page: &LogPage) -> Vec<u64> {
        page.events.iter().map(|of| of.position.get()).collect()
    }

    #[tokio::test]
    async fn slots_at_one_place_read_a_page_once() {
        let memory = MemoryStore::new();
        append(&memory, 25).await;
        let store = FaultyStore::new(Arc::new(memory.clone()), CountsReads::default());
        let reads = || store.fault().0.load(Ordering::Relaxed);
        let pages = Pages::default();
        let after = |position| ReadLog::after(Position::new(position)).limit(10);
        for _ in 0..3 {
            let page = pages.read(&*store, after(0)).await.unwrap();
            assert_eq!(page.events.len(), 10);
        }
        assert_eq!(reads(), 1);
        // Somewhere within the page: what is left of it, up to where the others stand.
        let rest = pages.read(&*store, after(7)).await.unwrap();
        assert_eq!((positions(&rest), reads()), (vec![8, 9, 10], 1));
        // The end is asked for by each, because there may be more by then.
        assert_eq!(
            pages.read(&*store, after(20)).await.unwrap().events.len(),
            5
        );
        append(&memory, 1).await;
        assert_eq!(
            pages.read(&*store, after(20)).await.unwrap().events.len(),
            6
        );
        assert_eq!(reads(), 3);
        pages.forget();
        pages.read(&*store, after(0)).await.unwrap();
        assert_eq!(reads(), 4);
    }
}
