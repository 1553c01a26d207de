//! Columns whose values are too long for a log: what is stored is their digest.

use std::borrow::Cow;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::Placed;
use crate::columns::Columns;
use crate::record::{BeforeImage, RowRecord};
use crate::schema::TableName;

/// The columns of which a digest is stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digests(Vec<(TableName, Arc<str>)>);

impl Digests {
    pub(crate) fn add(&mut self, table: &str, column: &str) {
        self.0.push((TableName::parse(table), column.into()));
    }

    /// The row with digests instead of these values.
    pub(super) fn of<'a>(&self, row: &'a RowRecord) -> Cow<'a, RowRecord> {
        let of_table = self.0.iter().filter(|(table, _)| *table == row.table);
        let mut row = Cow::Borrowed(row);
        for (_, name) in of_table {
            let row = row.to_mut();
            if let BeforeImage::Full(columns) = &mut row.before {
                digest(columns, name);
            }
            if let Some(columns) = &mut row.after {
                digest(columns, name);
            }
        }
        row
    }
}

fn digest(columns: &mut Columns, name: &Arc<str>) {
    let Some(Some(text)) = columns.get(name) else {
        return;
    };
    let hash = Sha256::digest(text.as_bytes());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let digest = format!("sha256:{hash} of {} bytes", text.len());
    columns.set(name, Some(digest));
}

/// What to say of a row that no event can hold; nothing when its events fit.
pub(super) fn too_long(row: &RowRecord, events: &[Placed], bytes_max: usize) -> Option<String> {
    let (_, event) = events.iter().find(|(_, of)| of.payload.len() > bytes_max)?;
    let longest = |columns: &Columns| {
        let lengths = columns
            .iter()
            .map(|(name, value)| (value.map_or(0, str::len), Arc::clone(name)));
        lengths.max()
    };
    let (bytes, column) = row
        .after
        .as_ref()
        .or(row.before.columns())
        .and_then(longest)?;
    Some(format!(
        "a row of `{table}` has {found} bytes, and an event {bytes_max} at most: its column \
         `{column}` has {bytes}. Say `large_values_as_digest(\"{table}\", \"{column}\")`, or leave \
         the column out of the publication",
        table = row.table,
        found = event.payload.len(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Because;
    use crate::record::RowOp;

    #[test]
    fn a_digest_replaces_a_long_value() {
        let row = RowRecord {
            op: RowOp::Insert,
            table: TableName::new("public", "files"),
            key: Columns::default().with("id", Some("1")),
            before: BeforeImage::None,
            after: Some(
                Columns::default()
                    .with("id", Some("1"))
                    .with("body", Some("abc")),
            ),
            unchanged: Vec::new(),
            schema: None,
            because: Because::Deleted,
            snapshot: None,
        };
        let mut digests = Digests::default();
        digests.add("files", "body");
        digests.add("other", "id");
        let stored = digests.of(&row).into_owned().after.unwrap();
        // The digest of "abc" is a test vector of FIPS 180-4.
        let digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad \
                      of 3 bytes";
        assert_eq!(stored.get("body"), Some(Some(digest)));
        assert_eq!(stored.get("id"), Some(Some("1")));
    }
}
