//! The numbers of the schemas of tables, as the log has them.

use std::collections::HashMap;
use std::sync::Arc;

use annals_core::{Filter, Position, ReadLog, Store, StoreError};
use serde::Deserialize;

use super::events::EventMaker;
use crate::schema::{Column, Identity, TableName, TableSchema};

/// What is known of the schemas of tables.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    known: HashMap<TableName, (u32, Option<Arc<TableSchema>>)>,
    /// The one whose number was asked for last.
    last: Option<(u32, Arc<TableSchema>)>,
}

#[derive(Deserialize)]
struct Payload {
    number: u32,
    identity: Identity,
    columns: Vec<Column>,
}

impl Schemas {
    /// Whether the last schema of a table is known without a look at the log.
    pub(super) fn knows(&self, table: &TableName) -> bool {
        self.known.contains_key(table)
    }

    /// The number of a schema, when it is the very one that was asked for last: rows of one table
    /// follow each other, and comparing it with the one of the log looks at each column.
    pub(super) fn number_of_last(&self, schema: &Arc<TableSchema>) -> Option<u32> {
        let (number, last) = self.last.as_ref()?;
        Arc::ptr_eq(last, schema).then_some(*number)
    }

    /// The number of a schema, and whether it is new.
    pub(super) async fn number(
        &mut self,
        store: &dyn Store,
        maker: &EventMaker,
        schema: &Arc<TableSchema>,
    ) -> Result<(u32, bool), StoreError> {
        let known = match self.known.get(&schema.table) {
            Some(known) => known,
            None => {
                let stored = stored(store, maker, &schema.table).await?;
                self.known.entry(schema.table.clone()).or_insert(stored)
            }
        };
        let (number, last) = known;
        let number = *number;
        if last.as_ref() == Some(schema) {
            self.last = Some((number, Arc::clone(schema)));
            return Ok((number, false));
        }
        let next = number + 1;
        if let Some(old) = last
            && has_other_key(old, schema)
        {
            let way_out = match schema.key().is_empty() {
                true => "resync_all",
                false => "resync",
            };
            tracing::warn!(
                table = %schema.table,
                way_out,
                "a table has another key: rows that were stored before stay under the old one \
                 until the tables are compared"
            );
        }
        let newest = (next, Some(Arc::clone(schema)));
        self.known.insert(schema.table.clone(), newest);
        self.last = Some((next, Arc::clone(schema)));
        Ok((next, true))
    }
}

/// Whether rows of a table that had a key have other streams from here on. A column that is only
/// named otherwise stays at its place.
fn has_other_key(old: &TableSchema, new: &TableSchema) -> bool {
    let places = |schema: &TableSchema| -> Vec<usize> {
        let columns = schema.columns.iter().enumerate();
        let of_key = columns.filter(|(_, column)| column.key);
        of_key.map(|(place, _)| place).collect()
    };
    let is_same = old.key() == new.key() || places(old) == places(new);
    !old.key().is_empty() && !is_same
}

/// The last schema of a table in the log.
async fn stored(
    store: &dyn Store,
    maker: &EventMaker,
    table: &TableName,
) -> Result<(u32, Option<Arc<TableSchema>>), StoreError> {
    let filter = Filter::default().types([maker.event_type(table, "schema")]);
    let mut read = ReadLog::after(Position::START)
        .backward()
        .limit(1)
        .filter(filter);
    loop {
        let page = store.read(read.clone()).await?;
        if let Some(event) = page.events.first() {
            let payload: Payload = serde_json::from_slice(&event.payload).map_err(|error| {
                StoreError::new(
                    annals_core::Failure::Incompatible,
                    format!(
                        "the schema of `{table}` at {} cannot be read",
                        event.position
                    ),
                )
                .because(error)
            })?;
            let schema = TableSchema {
                table: table.clone(),
                identity: payload.identity,
                columns: payload.columns,
            };
            return Ok((payload.number, Some(Arc::new(schema))));
        }
        if page.end || page.scanned <= Position::new(1) {
            return Ok((0, None));
        }
        read = read.up_to(page.scanned.minus(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `*id v`, of which those with a star are the key.
    fn schema(columns: &str) -> TableSchema {
        let columns = columns.split(' ').map(|name| Column {
            name: name.trim_start_matches('*').into(),
            type_name: "bigint".into(),
            oid: 20,
            typmod: -1,
            key: name.starts_with('*'),
        });
        TableSchema {
            table: TableName::new("public", "t"),
            identity: Identity::Default,
            columns: columns.collect(),
        }
    }

    #[tokio::test]
    async fn a_schema_keeps_its_number_however_it_is_asked_for() {
        let store = annals_core::MemoryStore::new();
        let maker = EventMaker::new("postgres 7", "");
        let mut schemas = Schemas::default();
        let [first, equal, other] = ["*id v", "*id v", "*id v w"].map(|of| Arc::new(schema(of)));
        for (asked, number, is_new) in [
            (&first, 1, true),
            (&equal, 1, false),
            (&other, 2, true),
            (&first, 3, true),
        ] {
            assert_eq!(schemas.number_of_last(asked), None);
            let found = schemas.number(&store, &maker, asked).await.unwrap();
            assert_eq!(found, (number, is_new));
            assert_eq!(schemas.number_of_last(asked), Some(number));
        }
    }

    #[test]
    fn another_key_is_told_from_a_renamed_one() {
        let has_other = |old: &str, new: &str| has_other_key(&schema(old), &schema(new));
        assert!(has_other("*id v", "id *v"));
        assert!(has_other("*id v", "id v"));
        assert!(has_other("*id v", "*id *v"));
        assert!(!has_other("*id v", "*uid v"));
        assert!(!has_other("a *id", "*id b"));
        assert!(!has_other("id v", "*id v"));
    }
}
