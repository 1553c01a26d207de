//! What is refused for good of what a pipeline sends: dead records, kept beside the note of the
//! sender.

use annals_core::{Log, Partition, Position, ReadLog, RowChange, StoreError};

use crate::pipeline::dead;
use crate::pipeline::outbox::Order;

/// One thing that is refused for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    order: Order,
    reason: String,
}

impl Refused {
    pub(super) fn of(order: &Order, reason: String) -> Refused {
        Refused {
            order: order.clone(),
            reason,
        }
    }

    #[cfg(test)]
    pub(super) fn order(&self) -> &Order {
        &self.order
    }
}

/// What a note writes of them.
pub(super) async fn rows<L: Log + ?Sized>(
    log: &L,
    partition: Partition,
    refused: Vec<Refused>,
) -> Result<Vec<RowChange>, StoreError> {
    let mut rows = Vec::with_capacity(refused.len());
    for Refused { order, reason } in refused {
        let cause = Position::new(order.position);
        let read = ReadLog::after(cause.minus(1)).up_to(cause);
        let page = log.read(read.partition(partition).limit(1)).await?;
        let known = page.events.first().map(dead::Record::of);
        let known = known.unwrap_or_else(|| dead::Record::removed(partition, cause));
        let of = (order.output, order.key.as_str(), order.index);
        rows.push(known.refused(of, reason).change());
    }
    Ok(rows)
}
