//! Events of the log by their positions.

use annals_core::{Partition, Position, ReadLog, RecordedEvent, Store, StoreError};

/// Events that are read along rather than read again: how far apart those of one read may stand.
const GAP_EVENTS: u64 = 32;

/// The events at these positions, which are in order; those that were removed are left out. Those
/// that stand near each other are read at once.
pub(crate) async fn records_at(
    log: &dyn Store,
    partition: Partition,
    positions: &[Position],
) -> Result<Vec<RecordedEvent>, StoreError> {
    let mut records = Vec::with_capacity(positions.len());
    for run in positions.chunk_by(|a, b| b.get() - a.get() <= GAP_EVENTS) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            continue;
        };
        let mut read = ReadLog::after(first.minus(1))
            .up_to(*last)
            .partition(partition);
        loop {
            let page = log.read(read.clone()).await?;
            let wanted = |record: &RecordedEvent| run.binary_search(&record.position).is_ok();
            records.extend(page.events.into_iter().filter(wanted));
            if page.end || page.scanned >= *last {
                break;
            }
            read.after = page.scanned;
        }
    }
    Ok(records)
}
