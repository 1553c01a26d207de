//! What operators should know of a session.

use super::Phase;
use crate::ingest::SourceStatus;

/// A slot that is about to be lost, or a copy that makes it keep much.
pub(super) fn slot_warning(phase: &Phase, status: &SourceStatus) -> Option<String> {
    let safe = u64::try_from(status.safe_wal_bytes?).unwrap_or_default();
    let (slot, keeps) = status.slot.as_ref()?;
    let limit = keeps + safe;
    if safe < limit / 5 {
        return Some(format!(
            "the server gives slot `{slot}` up after {safe} bytes more: raise \
             `max_slot_wal_keep_size`"
        ));
    }
    let copies = matches!(phase, Phase::Reads { .. });
    (copies && *keeps > limit / 10).then(|| {
        format!("while the tables are copied, slot `{slot}` keeps {keeps} of at most {limit} bytes")
    })
}
