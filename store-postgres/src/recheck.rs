//! Rechecking an append by what the database has now: whether it was done before, and if it was
//! not, why it would be refused.

use std::sync::Arc;

use annals_core::{AppendError, Appended, Duplicate, Incarnation, LogId, Violation, deduplicate};
use sqlx::Error;

use crate::database::Database;
use crate::known::{durably_known, placed_between};
use crate::page::first_match;
use crate::request::Request;
use crate::streams::see;

/// What an append is, by what the database has now.
#[derive(Debug)]
pub(crate) enum Recheck {
    /// It was done before.
    Repeated(Appended),
    /// It is refused.
    Refused(AppendError),
    /// Nothing speaks against it; its condition holds up to this position.
    Clear(u64),
}

/// Rechecks the append. Its ids come last: the same append, done before, also explains the rest.
pub(crate) async fn recheck(
    database: &Arc<Database>,
    log: LogId,
    request: &Request,
) -> Result<Recheck, Error> {
    let history = database.incarnation.number();
    let incarnation = Incarnation::numbered(log, history);
    let mut violations = match request.append.check_incarnation(incarnation) {
        Err(AppendError::Conflict(outdated)) => outdated,
        _ => Vec::new(),
    };
    // The last position that a refusal would rest on.
    let mut last = 0;
    for (index, touched) in request.streams.iter().enumerate() {
        let seen = see(database, &database.pool, &touched.stream).await?;
        let found = seen.state;
        if !touched.holds(&found) {
            last = last.max(seen.last);
            let stream = touched.stream.clone();
            let expected = touched.expected;
            violations.push(Violation::Stream {
                index,
                stream,
                expected,
                found,
            });
        }
    }
    let mut checked_to = 0;
    if let Some(conditional) = &request.condition {
        let (found, head) =
            first_match(database, &conditional.condition, conditional.after()).await?;
        if let Some(position) = found {
            last = last.max(position.get());
            violations.push(Violation::Condition { position });
        }
        checked_to = head.max(conditional.after().get());
    }
    let ids: Vec<_> = request
        .append
        .events
        .iter()
        .map(|(_, event)| event.id)
        .collect();
    let known = durably_known(database, &ids).await?;
    let placed = match deduplicate(&request.append.events, &known) {
        Ok(Duplicate::New) if violations.is_empty() => return Ok(Recheck::Clear(checked_to)),
        Ok(Duplicate::New) => {
            // A refusal writes nothing that would flush what it was decided on.
            database.until_durable(history, last).await?;
            return Ok(Recheck::Refused(AppendError::Conflict(violations)));
        }
        Ok(Duplicate::Repeated) => known
            .into_iter()
            .flatten()
            .map(|known| known.found.placed)
            .collect(),
        Ok(Duplicate::RequestDone { first, events }) => {
            let placed = placed_between(database, first, events).await?;
            let last = first.plus(u64::from(events)).minus(1);
            database.until_durable(history, last.get()).await?;
            placed
        }
        Err(clash) => return Ok(Recheck::Refused(clash.into())),
    };
    Ok(Recheck::Repeated(Appended::new(log, placed, true)))
}
