//! What a commit writes of the rows of all outputs.

use std::collections::BTreeMap;

use annals_core::{RowChange, RowVersion};

use super::machine::OutRow;
use super::output::{END, OutputSpec};
use crate::query::OWN_ENTRY;

/// Where the entries of the indexes of each output are among those of all.
#[derive(Debug, Default)]
pub(crate) struct IndexPlaces {
    of: BTreeMap<&'static str, usize>,
    count: usize,
}

impl IndexPlaces {
    pub(crate) fn of(outputs: &[OutputSpec]) -> IndexPlaces {
        let mut places = IndexPlaces::default();
        for output in outputs.iter().filter(|of| !of.indexes.is_empty()) {
            places.of.insert(output.name, places.count);
            places.count += output.indexes.len();
        }
        places
    }

    /// The entries of a row for the indexes of all outputs: nothing for those of others, which
    /// leaves it out of every range of theirs.
    pub(crate) fn entries(&self, key: &str, own: Vec<String>) -> Vec<String> {
        let mut entries = vec![String::new(); self.count];
        let output = key.split(END).next().unwrap_or_default();
        if let Some(first) = self.of.get(output) {
            for (entry, own) in entries.iter_mut().skip(*first).zip(own) {
                *entry = format!("{OWN_ENTRY}{own}");
            }
        }
        entries
    }
}

/// What a commit writes of rows: each key once, and of each place the last version.
pub(crate) fn written(
    mut rows: Vec<OutRow>,
    indexes: &IndexPlaces,
) -> (Vec<RowChange>, Vec<RowVersion>) {
    let changes = rows.len();
    // Rows of one key stay in the order of their causes.
    rows.sort_by(|one, other| one.key.cmp(&other.key));
    let mut changed: Vec<RowChange> = Vec::with_capacity(changes);
    let mut versions: Vec<RowVersion> = Vec::new();
    for row in rows {
        if row.keeps {
            let version = version(&row);
            match versions.last_mut() {
                Some(last) if last.key == version.key && last.up_to == version.up_to => {
                    *last = version;
                }
                _ => versions.push(version),
            }
        }
        let indexed = match &row.value {
            Some(_) => indexes.entries(&row.key, row.indexed),
            None => Vec::new(),
        };
        let change = RowChange {
            key: row.key,
            value: row.value,
            indexed,
        };
        match changed.last_mut() {
            Some(last) if last.key == change.key => *last = change,
            _ => changed.push(change),
        }
    }
    (changed, versions)
}

fn version(row: &OutRow) -> RowVersion {
    RowVersion {
        key: row.key.clone(),
        after: row.position.minus(1),
        up_to: row.position,
        recorded_at: row.recorded_at,
        value: row.value.clone(),
    }
}
