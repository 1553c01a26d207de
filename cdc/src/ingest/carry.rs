//! A row with a changed key, of which a long value did not change and was not sent: the value is in
//! the stream of the old key.

use std::sync::Arc;

use annals_core::{ReadStream, Store, StoreError, Stored, StreamId};

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
        let stored = Stored {
            event_type: &event.event_type,
            schema_version: event.schema_version,
            codec: &event.codec,
            payload: &event.payload,
        };
        take(stored, &mut names, &mut found);
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
