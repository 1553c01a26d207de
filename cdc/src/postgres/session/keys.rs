//! The key of a table that sends whole old rows, as it was when its changes were written: the
//! catalog has it as it is now.

use std::sync::Arc;

use super::super::control::ColumnNow;
use super::super::errors::stop;
use super::Session;
use crate::ingest::SourceError;
use crate::pgoutput::Relation;

impl Session {
    /// Looks for the key of a table where the message does not say which one it is.
    pub(super) async fn look_for_key(&mut self, relation: &Relation) -> Result<(), SourceError> {
        let Some(table) = self.decoder.lacks_key_of(relation) else {
            return Ok(());
        };
        let asked = self.control.columns_now(relation.oid);
        let now = self.heartbeat.answer(asked).await?;
        if let Some(key) = key_as_now(relation, &now) {
            self.decoder.know_key(relation, key);
        } else if !self.decoder.knows_key_of(relation) {
            let Some(key) = key_as_then(relation, &now) else {
                return Err(stop(format!(
                    "table `{table}` had other columns when its changes were written, and which of \
                     them were its key is not known: rename them back until these changes are in, \
                     or `resync_all` of the ingest makes a new slot and compares all tables"
                )));
            };
            self.decoder.know_key(relation, key);
        }
        Ok(())
    }
}

/// The key that the table has now, when it had all of its columns then.
fn key_as_now(then: &Relation, now: &[ColumnNow]) -> Option<Vec<Arc<str>>> {
    let key: Vec<_> = key_of(now).collect();
    let is_known = !now.is_empty() && key.iter().all(|name| had(then, name));
    is_known.then_some(key)
}

/// The key that the table had, when it has another one now: the columns at the same places. Nothing
/// when that is not certain.
fn key_as_then(then: &Relation, now: &[ColumnNow]) -> Option<Vec<Arc<str>>> {
    let has = |name: &Arc<str>| now.iter().any(|column| column.name == *name);
    // Of a table that is gone nothing is known, and a column that was added is in no row.
    if now.is_empty() || then.columns.iter().all(|column| has(&column.name)) {
        return Some(key_of(now).filter(|name| had(then, name)).collect());
    }
    if now.len() < then.columns.len() {
        return None;
    }
    let mut key = Vec::new();
    // A column keeps its place under another name, and a new one is the last.
    for (old, new) in then.columns.iter().zip(now) {
        let is_renamed = !has(&old.name) && !had(then, &new.name) && old.oid == new.oid;
        if old.name != new.name && !is_renamed {
            return None;
        }
        if new.is_key {
            key.push(Arc::clone(&old.name));
        }
    }
    Some(key)
}

fn key_of(now: &[ColumnNow]) -> impl Iterator<Item = Arc<str>> {
    let key = now.iter().filter(|column| column.is_key);
    key.map(|column| Arc::clone(&column.name))
}

fn had(then: &Relation, name: &Arc<str>) -> bool {
    then.columns.iter().any(|column| column.name == *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::RelationColumn;
    use crate::schema::Identity;

    /// `id v`, each of the type `oid`.
    fn relation_of(names: &str) -> Relation {
        let columns = names.split(' ').map(|name| RelationColumn {
            identity: true,
            name: name.into(),
            oid: 20,
            typmod: -1,
        });
        Relation {
            oid: 7,
            schema: "public".into(),
            name: "t".into(),
            identity: Identity::Full,
            columns: columns.collect(),
        }
    }

    /// `*id v`, of which those with a star are the key.
    fn columns_of(names: &str) -> Vec<ColumnNow> {
        let columns = names.split_whitespace().map(|name| ColumnNow {
            name: name.trim_start_matches('*').into(),
            oid: 20,
            is_key: name.starts_with('*'),
        });
        columns.collect()
    }

    #[track_caller]
    fn check(was: &str, is: &str, wanted: Option<&str>) {
        let then = relation_of(was);
        let now = columns_of(is);
        let key = key_as_now(&then, &now).or_else(|| key_as_then(&then, &now));
        assert_eq!(
            key.map(|key| key.join(" ")).as_deref(),
            wanted,
            "{was} {is}"
        );
    }

    #[test]
    fn a_key_that_was_renamed_is_found_at_its_place() {
        check("id v", "*id v", Some("id"));
        check("id v", "*uid v", Some("id"));
        check("v id", "w *uid", Some("id"));
        check("id v", "*uid v added", Some("id"));
        check("a b v", "*a *c v", Some("a b"));
    }

    #[test]
    fn a_key_that_was_added_is_in_no_row() {
        check("v", "v *id", Some(""));
        check("id v", "*id v *added", Some("id"));
        check("id v", "id v", Some(""));
        check("id v", "", Some(""));
    }

    #[test]
    fn a_key_at_another_place_is_not_guessed() {
        check("id v", "v *uid", None);
        check("id a v", "a v *uid", None);
        check("id v", "*uid", None);
        let mut now = columns_of("*uid v");
        now[0].oid = 25;
        assert_eq!(key_as_then(&relation_of("id v"), &now), None);
    }
}
