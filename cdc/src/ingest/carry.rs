//! What the log has of a row: values that did not change and were not sent, and the row as it was
//! before a change.

use std::sync::Arc;

use annals_core::{NewEvent, ReadStream, Store, StoreError, Stored, StreamId};

use super::Placed;
use crate::columns::Columns;
use crate::payload::{EventBody, RowPayload, body_of};

/// The last known values of these columns in a stream: in what is to be appended, then in the log.
pub(super) async fn carried(
    store: &dyn Store,
    pending: &[Placed],
    old: &StreamId,
    mut names: Vec<Arc<str>>,
) -> Result<Columns, StoreError> {
    let mut found = Columns::default();
    for (_, event) in pending.iter().rev().filter(|(to, _)| to == old) {
        take(stored(event), &mut names, &mut found);
    }
    let mut read = ReadStream::of(old.clone()).backward().limit(50);
    while !names.is_empty() {
        let page = store.read_stream(read.clone()).await?;
        for event in &page.events {
            take(Stored::from(event), &mut names, &mut found);
        }
        match page.next {
            Some(next) => read = read.resume(next),
            None => break,
        }
    }
    Ok(found)
}

/// The row of a stream as it was last: in what is to be appended, then in the log. Nothing when it
/// is not there.
pub(super) async fn known_row(
    store: &dyn Store,
    pending: &[Placed],
    stream: &StreamId,
) -> Result<Option<Columns>, StoreError> {
    let newest = pending.iter().rev().find(|(to, _)| to == stream);
    let body = match newest {
        Some((_, event)) => body_of(stored(event)).ok(),
        None => {
            let read = ReadStream::of(stream.clone()).backward().limit(1);
            let page = store.read_stream(read).await?;
            let newest = page.events.first();
            newest.and_then(|event| body_of(Stored::from(event)).ok())
        }
    };
    let Some(EventBody::Row(
        _,
        RowPayload {
            after, unchanged, ..
        },
    )) = body
    else {
        return Ok(None);
    };
    let Some(mut row) = after else {
        return Ok(None);
    };
    for (name, value) in carried(store, pending, stream, unchanged).await?.iter() {
        row.set(name, value.map(str::to_owned));
    }
    Ok(Some(row))
}

fn stored(event: &NewEvent) -> Stored<'_> {
    Stored {
        event_type: &event.event_type,
        schema_version: event.schema_version,
        codec: &event.codec,
        payload: &event.payload,
    }
}

fn take(stored: Stored<'_>, names: &mut Vec<Arc<str>>, found: &mut Columns) {
    let Ok(EventBody::Row(_, RowPayload { after, carried, .. })) = body_of(stored) else {
        return;
    };
    let of = |columns: &Option<Columns>, name: &str| -> Option<Option<String>> {
        let value = columns.as_ref()?.get(name)?;
        Some(value.map(str::to_owned))
    };
    names.retain(
        |name| match of(&after, name).or_else(|| of(&carried, name)) {
            Some(value) => {
                found.push(Arc::clone(name), value);
                false
            }
            None => true,
        },
    );
}
