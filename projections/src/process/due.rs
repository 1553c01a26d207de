//! Deadlines that wait: a row each, in the order of their times, and recorded when the clock says
//! so.

use std::collections::HashSet;
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use annals_core::{Annals, CommitError, ReadRows, RowChange, RowsBy, StoreError};
use serde::{Deserialize, Serialize};

use super::Process;
use super::instance::{Deadline, Instance, Noted, ProcessEvent};
use super::step::is_permanent;
use crate::key::ViewKey;
use annals_runner::{Slot, WorkError, chain};

#[derive(Serialize, Deserialize)]
struct Waiting {
    id: String,
    deadline: Deadline,
}

/// What becomes of the row of a deadline: it waits, or it does not any more.
pub(super) fn row_of(id: &str, deadline: &Deadline, waits: bool) -> RowChange {
    let key = (
        deadline.at.timestamp_micros(),
        id.to_owned(),
        deadline.number,
    )
        .to_key();
    let waiting = Waiting {
        id: id.into(),
        deadline: deadline.clone(),
    };
    let value = waits.then(|| {
        serde_json::to_vec(&waiting)
            .expect("texts and numbers can be written")
            .into()
    });
    RowChange {
        key,
        value,
        indexed: Vec::new(),
    }
}

/// Records every deadline that was reached by `now` in the stream of its process manager, once.
/// `recorded` are those whose rows are still there.
pub(super) async fn announce<P: Process>(
    db: &Annals,
    slot: &Slot,
    announced: &Mutex<HashSet<String>>,
) -> Result<(), StoreError> {
    let views = &slot.context.views;
    let now = slot.context.clock().now();
    let end = now.timestamp_micros().saturating_add(1).to_key();
    let by = RowsBy::KeyRange(Bound::Unbounded, Bound::Excluded(end));
    let mut read = ReadRows::of(slot.generation.id, by);
    let mut still = HashSet::new();
    loop {
        let page = views.read_rows(read.clone()).await;
        let page = page.map_err(|error: CommitError| WorkError::from(error).into_store())?;
        for row in page.rows {
            let known = announced
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&row.key);
            let recorded = if known {
                Ok(true)
            } else {
                record_reached::<P>(db, &row.value).await
            };
            let recorded = recorded.unwrap_or_else(|reason| {
                let key = row.key.escape_debug().to_string();
                tracing::error!(
                    process = P::NAME,
                    key,
                    reason,
                    "a deadline cannot be recorded"
                );
                slot.progress.note_error(&reason);
                // It is tried again when the worker starts the next time.
                true
            });
            if recorded {
                still.insert(row.key);
            }
        }
        match page.next {
            Some(next) => read = read.after(Some(next)),
            None => break,
        }
    }
    *announced.lock().unwrap_or_else(PoisonError::into_inner) = still;
    Ok(())
}

/// `false`: it is to be tried again. The reason, when that would change nothing.
async fn record_reached<P: Process>(db: &Annals, row: &[u8]) -> Result<bool, String> {
    let Ok(Waiting { id, deadline }) = serde_json::from_slice(row) else {
        return Ok(true);
    };
    let process = db.aggregate::<Instance<P>>(&id);
    let reached = process.run(|instance: &Instance<P>| {
        let waits = instance.waits_for(&deadline);
        let reached = || ProcessEvent::<P>::Noted(Noted::DeadlineReached(deadline.clone()));
        Ok::<_, Infallible>(waits.then(reached))
    });
    // Without an idempotency key: the state says whether it was recorded. Numbers begin anew with a
    // stream that was deleted, so a key of them would be known from before, and nothing recorded.
    match reached.await {
        Ok(_) => Ok(true),
        Err(error) if is_permanent(&error) => Err(chain(&error)),
        Err(error) => {
            tracing::warn!(
                process = P::NAME,
                id,
                deadline = deadline.name,
                error = chain(&error),
                "a deadline was not recorded"
            );
            Ok(false)
        }
    }
}
