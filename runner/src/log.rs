//! Events of the log by their positions.

use annals_core::{Log, Partition, Position, ReadLog, RecordedEvent, StoreError};

/// Events that are read along rather than read again: the largest distance between two of one read.
const GAP_EVENTS: u64 = 32;

/// The events at these positions, which are in order, without those that were removed. Those that
/// are near each other are read at once.
///
/// # Errors
///
/// Only those of a store that cannot answer.
pub async fn records_at<L: Log + ?Sized>(
    log: &L,
    partition: Partition,
    positions: &[Position],
) -> Result<Vec<RecordedEvent>, StoreError> {
    if positions.is_empty() {
        return Ok(Vec::new());
    }
    // A log that stops its followers at what was removed would stop these reads too.
    let begins_after = log.begins_after(partition).await?;
    let removed = positions.partition_point(|position| *position <= begins_after);
    let positions = &positions[removed..];
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
