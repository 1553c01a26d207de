//! A table as a read model: its rows as they are, or as they were at any moment.

use std::fmt;
use std::marker::PhantomData;

use annals_projections::{Handlers, History, Poison, Project, Recorded, Row, View};
use serde::{Deserialize, Serialize};

use crate::change::RawChange;
use crate::columns::Columns;
use crate::payload::{EventBody, RowPayload};
use crate::record::RowOp;
use crate::row::{ColumnError, ReceivedRow, TableRow};

macro_rules! table_view {
    ($(#[$doc:meta])* $name:ident, $view:ident, $history:ident) => {
        $(#[$doc])*
        #[derive(Serialize, Deserialize)]
        #[serde(bound = "", transparent)]
        pub struct $name<T> {
            columns: Columns,
            #[serde(skip)]
            table: PhantomData<fn() -> T>,
        }

        impl<T> Default for $name<T> {
            fn default() -> $name<T> {
                $name {
                    columns: Columns::default(),
                    table: PhantomData,
                }
            }
        }

        impl<T> Clone for $name<T> {
            fn clone(&self) -> $name<T> {
                $name {
                    columns: self.columns.clone(),
                    table: PhantomData,
                }
            }
        }

        impl<T> PartialEq for $name<T> {
            fn eq(&self, other: &$name<T>) -> bool {
                self.columns == other.columns
            }
        }

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.columns.fmt(f)
            }
        }

        impl<T: TableRow> $name<T> {
            /// The row as its type.
            ///
            /// # Errors
            ///
            /// [`ColumnError`] when a column is missing or is no such value.
            pub fn row(&self) -> Result<T, ColumnError> {
                T::from_columns(&ReceivedRow {
                    columns: &self.columns,
                    unchanged: &[],
                    schema: 0,
                })
            }

            /// The row in columns.
            pub const fn columns(&self) -> &Columns {
                &self.columns
            }
        }

        impl<T: TableRow> View for $name<T> {
            const NAME: &'static str = T::$view;
            const HISTORY: History = History::$history;

            type Key = T::Key;

            fn handlers() -> Handlers<Self> {
                Handlers::new().on::<RawChange<T>>()
            }
        }

        impl<T: TableRow> Project<RawChange<T>> for $name<T> {
            fn keys(event: &Recorded<RawChange<T>>) -> Result<Vec<T::Key>, Poison> {
                keys::<T>(event)
            }

            fn on(row: &mut Row<'_, Self>, event: &Recorded<RawChange<T>>) -> Result<(), Poison> {
                match after(&row.columns, event) {
                    Some(columns) => row.columns = columns,
                    None => row.remove(),
                }
                Ok(())
            }
        }
    };
}

table_view! {
    /// The rows of a table as they are: a view. Kept as columns, so that a long value that did not
    /// change and was not sent is still known, and so that a change of the table needs no rebuild.
    ///
    /// ```
    /// # use annals_cdc::{TableOf, TableRow};
    /// # fn example<Order: TableRow + std::fmt::Debug>(found: &TableOf<Order>) {
    /// println!("{:?}", found.row());
    /// # }
    /// ```
    TableOf, VIEW, None
}

table_view! {
    /// The rows of a table as they are and as they were at any moment: a view with history.
    TableHistory, HISTORY_VIEW, Versions
}

/// The key is in the payload: names of streams may be escaped or hashed.
fn keys<T: TableRow>(event: &Recorded<RawChange<T>>) -> Result<Vec<T::Key>, Poison> {
    let key = match &event.body {
        EventBody::Row(_, payload) => &payload.key,
        EventBody::Moved(moved) => &moved.key,
    };
    Ok(vec![T::key_of(key)?])
}

/// The row after a change; nothing when it is gone.
fn after<T: TableRow>(old: &Columns, event: &Recorded<RawChange<T>>) -> Option<Columns> {
    let EventBody::Row(op, payload) = &event.body else {
        return None;
    };
    match (op, payload) {
        (RowOp::Delete, _) => None,
        (
            _,
            RowPayload {
                after: Some(after),
                unchanged,
                carried,
                ..
            },
        ) => {
            let mut row = after.clone();
            for name in unchanged {
                let carried = carried.as_ref().and_then(|carried| carried.get(name));
                if let Some(value) = carried.or_else(|| old.get(name)) {
                    row.set(name, value.map(str::to_owned));
                }
            }
            Some(row)
        }
        _ => Some(old.clone()),
    }
}
