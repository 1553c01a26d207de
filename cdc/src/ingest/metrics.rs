//! What a recorder of metrics gets of an ingest: the names are promises, listed in
//! `docs/operating/cdc.md`. What the loop of all workers counts comes beside it.

use metrics::{counter, gauge};

use super::status::IngestStatus;

/// Says how an ingest is.
///
/// A slot that was there and is gone keeps nothing.
pub(super) fn report(status: &IngestStatus, had_slot: bool) {
    let labels = [("ingest", status.name.clone())];
    let source = &status.source;
    if let Some(bytes) = source.lag_bytes {
        gauge!("annals_ingest_lag_bytes", &labels).set(bytes as f64);
    }
    if let Some(seconds) = status.lag_seconds {
        gauge!("annals_ingest_lag_seconds", &labels).set(seconds);
    }
    match &source.slot {
        Some((_, bytes)) => gauge!("annals_ingest_slot_bytes", &labels).set(*bytes as f64),
        None if had_slot => gauge!("annals_ingest_slot_bytes", &labels).set(0.0),
        None => {}
    }
    if let Some(bytes) = source.safe_wal_bytes {
        gauge!("annals_ingest_safe_wal_bytes", &labels).set(bytes as f64);
    }
    let rows = source.snapshot_rows.unwrap_or_default();
    gauge!("annals_ingest_snapshot_rows", &labels).set(rows as f64);
    counter!("annals_ingest_transactions_total", &labels).absolute(status.transactions);
    counter!("annals_ingest_events_total", &labels).absolute(status.events);
    counter!("annals_ingest_skipped_total", &labels).absolute(status.skipped);
}
