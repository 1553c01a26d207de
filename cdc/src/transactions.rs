//! Whole transactions of the source, from pages of the log.

use std::collections::VecDeque;
use std::fmt;

use annals_core::{Pages, RecordedEvent, StoreError};
use uuid::Uuid;

/// The events of each transaction of the source together, in the order of the log. Events that no
/// source brought are each alone, and so are marks.
///
/// A large transaction is appended by parts, so the last one of the log may not be there in whole:
/// then it is not given. The pages must not be filtered by type, or its last event may be missing.
///
/// ```
/// use annals_cdc::Transactions;
///
/// # async fn example(db: annals_core::Annals) -> Result<(), annals_core::StoreError> {
/// let mut transactions = Transactions::of(db.events().pages());
/// while let Some(events) = transactions.next().await? {
///     println!("{} events", events.len());
/// }
/// # Ok(())
/// # }
/// ```
pub struct Transactions {
    pages: Pages,
    whole: VecDeque<Vec<RecordedEvent>>,
    open: Vec<RecordedEvent>,
}

impl Transactions {
    /// Of these pages.
    pub fn of(pages: Pages) -> Transactions {
        Transactions {
            pages,
            whole: VecDeque::new(),
            open: Vec::new(),
        }
    }

    /// The events of the next transaction; nothing when no more are there in whole.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub async fn next(&mut self) -> Result<Option<Vec<RecordedEvent>>, StoreError> {
        while self.whole.is_empty() {
            let Some(page) = self.pages.next().await? else {
                return Ok(None);
            };
            for event in page.events {
                self.take(event);
            }
        }
        Ok(self.whole.pop_front())
    }

    fn take(&mut self, event: RecordedEvent) {
        let of = transaction(&event);
        if of.is_none() && !self.open.is_empty() {
            // The mark of a part: its transaction goes on.
            self.whole.push_back(vec![event]);
            return;
        }
        if self.open.last().is_some_and(|last| transaction(last) != of) {
            self.whole.push_back(std::mem::take(&mut self.open));
        }
        let is_whole = of.is_none() || event.metadata.keys.contains_key("cdc.last");
        self.open.push(event);
        if is_whole {
            self.whole.push_back(std::mem::take(&mut self.open));
        }
    }
}

/// The transaction of the source, if the event is of one.
fn transaction(event: &RecordedEvent) -> Option<Uuid> {
    event.metadata.keys.get("cdc.commit")?;
    event.metadata.correlation
}

impl fmt::Debug for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transactions").finish_non_exhaustive()
    }
}
