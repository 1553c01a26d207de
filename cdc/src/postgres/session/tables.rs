//! The tables of a publication while the stream goes on: one that was taken out of it, or has
//! another name, is not seen in the stream.

use std::collections::BTreeMap;

use super::super::control::NamedTables;
use crate::schema::{TableName, quoted};

/// The tables that are taken in, as they were when the session began.
#[derive(Debug)]
pub(super) struct Watched {
    publication: String,
    tables: NamedTables,
    /// What became of some of them since.
    found: BTreeMap<TableName, Found>,
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// The publication does not have it.
    Out,
    /// The publication did not have it for a while.
    WasOut,
    /// It has another name.
    Renamed(TableName),
}

impl Watched {
    /// Of the tables of a publication these, or all of them where none are named.
    pub(super) fn of(publication: &str, wanted: &[TableName], mut named: NamedTables) -> Watched {
        named.retain(|_, table| wanted.is_empty() || wanted.contains(table));
        Watched {
            publication: publication.to_owned(),
            tables: named,
            found: BTreeMap::new(),
        }
    }

    /// Compares them with those that the publication has now.
    pub(super) fn look(&mut self, now: &NamedTables) {
        for (number, table) in &self.tables {
            let found = match now.get(number) {
                Some(name) if name != table => Some(Found::Renamed(name.clone())),
                Some(_) => None,
                // It was perhaps dropped and made again.
                None if now.values().any(|name| name == table) => Some(Found::WasOut),
                None => Some(Found::Out),
            };
            match (found, self.found.get(table)) {
                (Some(found), _) => drop(self.found.insert(table.clone(), found)),
                (None, Some(Found::Out)) => {
                    self.found.insert(table.clone(), Found::WasOut);
                }
                (None, Some(Found::Renamed(_))) => drop(self.found.remove(table)),
                (None, _) => {}
            }
        }
    }

    /// What operators should know.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        let publication = &self.publication;
        self.found.iter().map(move |(table, found)| match found {
            Found::Out => format!(
                "publication `{publication}` lacks table `{table}`, whose changes are not sent: \
                 `alter publication {} add table {}`, then `resync` of the table",
                quoted(publication),
                table.quoted()
            ),
            Found::WasOut => format!(
                "publication `{publication}` lacked table `{table}` for a while: `resync` of the \
                 table finds what changed meanwhile"
            ),
            Found::Renamed(name) => format!(
                "table `{table}` is named `{name}` now, and its rows become events of `{name}`: \
                 rename it back, or take in `{name}` and `resync` that"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(tables: &[(i64, &str)]) -> NamedTables {
        let tables = tables.iter();
        tables
            .map(|(number, name)| (*number, TableName::new("public", name)))
            .collect()
    }

    #[test]
    fn a_table_that_goes_or_is_renamed_is_warned_of() {
        let begun = named(&[(1, "a"), (2, "b"), (3, "c")]);
        let wanted = [TableName::new("public", "a"), TableName::new("public", "b")];
        let mut watched = Watched::of("p", &wanted, begun.clone());
        let mut look = |tables: &[(i64, &str)]| {
            watched.look(&named(tables));
            let warnings: Vec<_> = watched.warnings().collect();
            warnings.join(" · ")
        };
        assert_eq!(look(&[(1, "a"), (2, "b")]), "");
        let renamed = "table `public.a` is named `public.z` now, and its rows become events of \
            `public.z`: rename it back, or take in `public.z` and `resync` that";
        assert_eq!(look(&[(1, "z"), (2, "b")]), renamed);
        assert_eq!(look(&[(1, "a"), (2, "b")]), "");
        let out = "publication `p` lacks table `public.b`, whose changes are not sent: `alter \
            publication \"p\" add table \"public\".\"b\"`, then `resync` of the table";
        assert_eq!(look(&[(1, "a")]), out);
        let was_out = "publication `p` lacked table `public.b` for a while: `resync` of the table \
            finds what changed meanwhile";
        assert_eq!(look(&[(1, "a"), (2, "b")]), was_out);
        assert_eq!(look(&[(1, "a"), (2, "b")]), was_out);
        assert_eq!(look(&[(1, "a"), (4, "b")]), was_out);
    }
}
