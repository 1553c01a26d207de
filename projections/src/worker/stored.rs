//! The rows of a slot as they are stored. Nothing of it depends on the view: futures are boxed
//! here, so that they are compiled once.

use annals_core::{ReadRows, RowsBy, Version, VersionedRow};
use annals_runner::{BoxFuture, Slot, WorkError};
use bytes::Bytes;

use crate::keyed::KeyedRows;

/// The bytes of a row, where there is one, and the version of its stream when the view is inline.
type Stored = (Option<Bytes>, Option<Version>);

/// The rows of these keys; of an inline view with the versions of their streams.
pub(super) fn stored_rows<'a>(
    of: &'a Slot,
    view: &'static str,
    keys: &'a [String],
) -> BoxFuture<'a, Result<Vec<VersionedRow>, WorkError>> {
    Box::pin(async move {
        if of.generation.spec.inline {
            return versioned(of, view, keys).await;
        }
        let views = &*of.context.views;
        let mut found = KeyedRows::read(views, of.generation.id, keys).await?;
        let row = |key: &String| VersionedRow {
            key: key.clone(),
            value: found.rows.remove(key),
            at: Version::NONE,
        };
        Ok(keys.iter().map(row).collect())
    })
}

/// The row of a key.
pub(super) fn stored_row<'a>(
    of: &'a Slot,
    view: &'static str,
    key: &'a str,
) -> BoxFuture<'a, Result<Stored, WorkError>> {
    Box::pin(async move {
        if of.generation.spec.inline {
            let row = versioned(of, view, &[key.to_owned()]).await?.pop();
            return Ok(row.map_or((None, Some(Version::NONE)), |row| (row.value, Some(row.at))));
        }
        let read = ReadRows::of(of.generation.id, RowsBy::Keys(vec![key.into()])).limit(1);
        let page = of.context.views.read_rows(read).await?;
        let row = page.rows.into_iter().next();
        Ok((row.map(|row| row.value), None))
    })
}

/// Rows of an inline view with the versions of their streams, one for each of these keys.
async fn versioned(of: &Slot, view: &str, keys: &[String]) -> Result<Vec<VersionedRow>, WorkError> {
    let inline = of.context.log().inline_views().ok_or_else(|| {
        WorkError::Stopped(format!(
            "view `{view}` is inline, and the store of this log keeps no inline views; open it \
             with a store that does, or do without `inline`"
        ))
    })?;
    let mut found = inline
        .read_versioned(of.generation.id, keys)
        .await?
        .into_iter()
        .peekable();
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    let row = |key: String| {
        let nothing = |key| VersionedRow {
            key,
            value: None,
            at: Version::NONE,
        };
        found
            .next_if(|row| row.key == key)
            .unwrap_or_else(|| nothing(key))
    };
    Ok(keys.into_iter().map(row).collect())
}
