//! How far the log is durable: what readers are given.
//!
//! Processes that append at the same time commit first and flush afterwards, so positions are
//! visible for a moment that a crash of the server takes back and gives to other events. A reader
//! is given none of them: it waits until they are flushed.

use sqlx::Error;
use tokio::sync::Mutex;

use crate::database::Database;
use crate::incarnation::Cached;

/// The last position that is known to be durable.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    position: Cached<u64>,
    /// One look at a time: all that wait meanwhile use its answer.
    looking: Mutex<()>,
}

impl Durable {
    /// Everything up to `position` is durable in the incarnation of this number.
    pub(crate) fn raise(&self, number: u64, position: u64) {
        self.position
            .of(number, |known| *known = position.max(*known));
    }

    pub(crate) fn position(&self, number: u64) -> u64 {
        self.position.of(number, |known| *known)
    }
}

impl Database {
    /// Waits until a position that was read in the incarnation of this number is durable, which it
    /// soon is. Fails as a lost connection does when the incarnation is another one by then: what
    /// was read may be gone, and must be read again.
    pub(crate) async fn until_durable(&self, number: u64, position: u64) -> Result<(), Error> {
        // With relaxed durability everything visible is given.
        let is_durable = || self.is_relaxed || self.durable.position(number) >= position;
        if !is_durable() {
            let _turn = self.durable.looking.lock().await;
            for flushes in [false, true] {
                if !is_durable() {
                    self.look(flushes).await?;
                }
            }
            if !is_durable() {
                return Err(history_changed());
            }
        }
        self.check_same_incarnation(number)
    }

    /// The head of a page that was read up to `position`, when the log went to `head`: what is not
    /// known to be durable is left to the next page.
    pub(crate) async fn durable_head(
        &self,
        number: u64,
        position: u64,
        head: u64,
    ) -> Result<u64, Error> {
        self.until_durable(number, position).await?;
        if self.is_relaxed {
            return Ok(head);
        }
        Ok(head.min(self.durable.position(number)))
    }

    /// Waits until everything is durable that is visible now.
    pub(crate) async fn until_all_durable(&self) -> Result<(), Error> {
        let number = self.incarnation.number();
        let head = self.check_history().await?;
        self.until_durable(number, head).await
    }

    /// Fails when what was read in the incarnation of this number may be of another one.
    pub(crate) fn check_same_incarnation(&self, number: u64) -> Result<(), Error> {
        if number == self.incarnation.number() {
            return Ok(());
        }
        Err(history_changed())
    }
}

/// As a lost connection is: reading again gives one incarnation.
fn history_changed() -> Error {
    Error::Io(std::io::Error::other(
        "the incarnation of the log changed while it was read",
    ))
}
