//! One append: events and a mark, under the version of the marks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    Append, AppendError, Backoff, ChangeStream, EventId, Expected, IdClash, NewEvent, Partition,
    Store, StreamChange, StreamId, Version,
};
use annals_runner::WorkError;

use super::Placed;
use super::mark::{Mark, Partial, Resume, mark_stream};
use super::record::skip_of;
use crate::record::At;

/// Waits between tries of an append whose outcome is unknown.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));

/// What is known of the events of an append, beside themselves.
#[derive(Debug, Default)]
pub(super) struct Origin {
    /// Whether its rows are of a copy.
    pub(super) is_copied: bool,
    /// The messages that events are made of, where operators name those.
    pub(super) messages: HashMap<EventId, (u32, u64)>,
}

impl Origin {
    fn message(&self, (_, event): &Placed) -> Option<(u32, u64)> {
        self.messages.get(&event.id).copied()
    }
}

/// Appends, and returns the version of the marks then; nothing when another process takes in under
/// this name. Of events that can never be appended, the whole transactions before are.
pub(super) async fn append(
    store: &dyn Store,
    (name, version): (&str, Version),
    events: Vec<Placed>,
    (mark, last): (&Mark, Option<&Mark>),
    origin: &Origin,
) -> Result<Option<Version>, WorkError> {
    let stream = mark_stream(name)?;
    let marked = mark.event()?;
    let mut append = Append::default().requiring(stream.clone(), Expected::Version(version));
    append.events = events;
    // Shared: a copy for the case that its answer is lost would cost as much as making its events.
    let append = Arc::new(append.event(stream, marked));
    let mut backoff = BACKOFF;
    loop {
        match store.append_shared(&append).await {
            Ok(appended) => {
                let found = appended.last().version;
                if found == version.next() {
                    return Ok(Some(found));
                }
                return Err(WorkError::Stopped(format!(
                    "the mark is at version {found} of its stream and not at {}: the store took \
                     the append for another one, and nothing is confirmed",
                    version.next()
                )));
            }
            // The same append again, with the same ids, says what became of it.
            Err(AppendError::Unknown(error)) => {
                tracing::info!(ingest = name, %error, "asking for the outcome of an append");
                tokio::time::sleep(backoff.next_wait()).await;
            }
            Err(AppendError::Conflict(_)) => return Ok(None),
            Err(AppendError::Store(error)) => return Err(error.into()),
            // These events can never be appended.
            Err(error) => {
                let fault = at_fault(store, &append, &error).await;
                let what = match fault.and_then(|index| append.events.get(index)) {
                    Some(placed) => place_of(placed, origin),
                    None => "no event of it is at fault".to_owned(),
                };
                if !origin.is_copied
                    && let Some(index) = fault
                {
                    let marks = (mark, last);
                    let refused = Arc::unwrap_or_clone(append);
                    append_whole(store, (name, version), refused, index, marks, origin).await?;
                }
                return Err(WorkError::Stopped(format!("{error} ({what})")));
            }
        }
    }
}

/// Appends the transactions that are whole before an event that can never be appended. Where the
/// source is read on is where it was.
async fn append_whole(
    store: &dyn Store,
    (name, version): (&str, Version),
    refused: Append,
    index: usize,
    (mark, last): (&Mark, Option<&Mark>),
    origin: &Origin,
) -> Result<(), WorkError> {
    let mut events = refused.events;
    let refused_event = events.get(index).cloned();
    events.truncate(index);
    let whole = match refused_event.as_ref().and_then(|of| origin.message(of)) {
        Some(message) => Some((before_message(&events, message, origin), None)),
        None => whole_transactions(&events, refused_event.as_ref(), mark),
    };
    let Some((count, partial)) = whole.filter(|(count, _)| *count > 0) else {
        return Ok(());
    };
    events.truncate(count);
    let mut part = mark.clone();
    part.partial = partial;
    part.resumes_as(last);
    part.transactions = 0;
    part.events = events.len() as u64;
    let stream = mark_stream(name)?;
    let mut append = Append::default().requiring(stream.clone(), Expected::Version(version));
    append.events = events;
    append = append.event(stream, part.event()?);
    if let Err(error) = store.append(append).await {
        // It is made again with the next try.
        tracing::info!(ingest = name, %error, "what came before was not appended");
    }
    Ok(())
}

/// How many events come before those of the message whose event was refused. What is said again is
/// known by its ids.
fn before_message(events: &[Placed], message: (u32, u64), origin: &Origin) -> usize {
    let is_of = |of: &&Placed| origin.message(of) == Some(message);
    events.len() - events.iter().rev().take_while(is_of).count()
}

/// How many events are of transactions that are whole, and up to where they are.
fn whole_transactions(
    events: &[Placed],
    refused: Option<&Placed>,
    mark: &Mark,
) -> Option<(usize, Option<Partial>)> {
    let is_last = |(_, event): &Placed| event.metadata.keys.contains_key("cdc.last");
    let end = events.iter().rposition(is_last)?;
    let next = events.get(end + 1).or(refused);
    let partial = events
        .get(end)
        .and_then(|(_, event)| up_to(event, next.map(|(_, event)| event)));
    match mark.resume {
        Some(Resume::Lsn(_)) if partial.is_some() => Some((end + 1, partial)),
        // What is said again is known by its ids.
        Some(Resume::Positions(_)) => Some((end + 1, None)),
        _ => None,
    }
}

/// Up to the last event of a transaction. A message outside of transactions may be where the commit
/// begins that comes next: then nothing of that is in.
fn up_to(event: &NewEvent, next: Option<&NewEvent>) -> Option<Partial> {
    let commit = event.metadata.keys.get("cdc.commit")?;
    let ordinal = event
        .metadata
        .keys
        .get("cdc.ordinal")?
        .parse::<u64>()
        .ok()?;
    let of_next = next.and_then(|next| next.metadata.keys.get("cdc.commit"));
    Some(Partial {
        commit: commit.parse().ok()?,
        through: match of_next == Some(commit) {
            true => ordinal,
            false => ordinal + 1,
        },
    })
}

/// So many marks are there at most: then all but the last are archived, at once.
const MARKS_MAX: u64 = 10_000;

/// Archives the marks before the last one, whenever so many have come together.
pub(super) async fn archive_marks(store: &dyn Store, stream: &StreamId, version: Version) {
    if !version.get().is_multiple_of(MARKS_MAX) {
        return;
    }
    let archive = StreamChange::Archive { before: version };
    let change = ChangeStream::new(stream, archive);
    if let Err(error) = store.change_stream(change).await {
        // It is done with the next ones.
        tracing::info!(%stream, %error, "the marks were not archived");
    }
}

/// Which event it is for which a store refuses an append of many transactions.
async fn at_fault(store: &dyn Store, append: &Append, error: &AppendError) -> Option<usize> {
    let events = &append.events;
    match error {
        AppendError::IdClash(
            IdClash::OtherContent { index, .. } | IdClash::OtherStream { index, .. },
        ) => Some(*index),
        // The others of them are new.
        AppendError::IdClash(_) => {
            let ids: Vec<_> = events.iter().map(|(_, event)| event.id).collect();
            let found = store.find(Partition(0), &ids).await.ok()?;
            found.iter().position(Option::is_some)
        }
        _ => {
            let limits = store.limits();
            let mut ids = HashSet::new();
            events.iter().position(|(to, event)| {
                let alone = Append::new(to.clone(), [event.clone()]);
                !ids.insert(event.id) || alone.check(&limits).is_err()
            })
        }
    }
}

/// Where an event comes from, and how its record is skipped.
fn place_of(placed: &Placed, origin: &Origin) -> String {
    let (to, event) = placed;
    let of = |key: &str| event.metadata.keys.get(key);
    let what = format!(
        "event `{}` of stream `{to}`, id {}",
        event.event_type, event.id
    );
    if let Some(message) = origin.message(placed).filter(|_| !origin.is_copied) {
        let at = At {
            message: Some(message),
            ..At::default()
        };
        return format!("{what}; {}", skip_of(at));
    }
    match (of("cdc.commit"), of("cdc.ordinal")) {
        _ if origin.is_copied => {
            format!("{what}: mend its row, or skip it with `skip_row(table, key, reason)`")
        }
        (Some(commit), Some(record)) => format!(
            "{what}; commit {commit}, record {record}: skip it with `skip(commit, record, reason)`"
        ),
        _ => what,
    }
}

#[cfg(test)]
mod tests {
    use annals_core::{EventStore as _, MemoryStore, StreamState};

    use super::*;

    #[tokio::test]
    async fn old_marks_are_archived_and_the_last_is_kept() {
        let store = MemoryStore::new();
        let stream = mark_stream("shop").unwrap();
        let state = async || -> StreamState {
            let read = annals_core::ReadStream::of(stream.clone())
                .backward()
                .limit(1);
            store.read_stream(read).await.unwrap().state
        };
        for _ in 0..2 {
            let marks = (0..MARKS_MAX / 2).map(|_| NewEvent::json("cdc.mark", "{}"));
            store
                .append(Append::new(stream.clone(), marks))
                .await
                .unwrap();
            archive_marks(&store, &stream, state().await.version).await;
            if state().await.version < Version::new(MARKS_MAX) {
                assert_eq!(state().await.archived_before, Version::NONE);
            }
        }
        assert_eq!(state().await.archived_before, Version::new(MARKS_MAX));
        assert_eq!(state().await.version, Version::new(MARKS_MAX));
    }
}
