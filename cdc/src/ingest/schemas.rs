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
        if last.as_ref() == Some(schema) {
            return Ok((*number, false));
        }
        let next = number + 1;
        let newest = (next, Some(Arc::clone(schema)));
        self.known.insert(schema.table.clone(), newest);
        Ok((next, true))
    }
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
