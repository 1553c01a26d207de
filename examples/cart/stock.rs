//! Stock: how many pieces of a product there are. A stream for each product, so that two checkouts
//! meet only over what both want.

use annals::Snapshots;
use annals::prelude::*;

/// What happens to the stock of a product.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "stock")]
pub(crate) enum StockEvent {
    Received {
        pieces: u32,
    },
    /// For a cart that was checked out in the same append.
    Taken {
        pieces: u32,
        cart: String,
    },
}

/// What is left of a product.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stock {
    pub(crate) pieces: u64,
}

impl Aggregate for Stock {
    type Event = StockEvent;

    fn apply(&mut self, event: &StockEvent) {
        match event {
            StockEvent::Received { pieces } => self.pieces += u64::from(*pieces),
            StockEvent::Taken { pieces, .. } => {
                self.pieces = self.pieces.saturating_sub(u64::from(*pieces));
            }
        }
    }

    /// The state is small and the stream grows with every sale: it is kept from time to time.
    fn snapshots() -> Option<Snapshots<Stock>> {
        Some(Snapshots::every(1_000))
    }
}

/// Why nothing is taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StockError {
    #[error("{left} are left, and {wanted} are wanted")]
    TooFew { left: u64, wanted: u32 },
}

impl Stock {
    pub(crate) fn receive(&self, pieces: u32) -> Result<StockEvent, StockError> {
        Ok(StockEvent::Received { pieces })
    }

    pub(crate) fn take(&self, pieces: u32, cart: &str) -> Result<StockEvent, StockError> {
        if self.pieces < u64::from(pieces) {
            return Err(StockError::TooFew {
                left: self.pieces,
                wanted: pieces,
            });
        }
        Ok(StockEvent::Taken {
            pieces,
            cart: cart.to_owned(),
        })
    }
}
