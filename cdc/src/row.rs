//! Rows of a table as a type of a program.

use std::fmt;
use std::sync::Arc;

use annals_core::Shape;
use annals_projections::ViewKey;

use crate::column::FromColumn;
use crate::columns::Columns;
use crate::schema::TableName;

/// A row of a captured table as a type: usually `#[derive(TableRow)]`.
///
/// Columns that it does not name are passed over. The order of the columns does not matter.
pub trait TableRow: Sized + Send + Sync + 'static {
    /// What its rows are known by.
    type Key: ViewKey;

    /// The table.
    fn table() -> TableName;

    /// The category of its streams: both parts of the name, escaped.
    const CATEGORY: &'static str;

    /// The name of [`TableOf`](crate::TableOf) this table.
    const VIEW: &'static str;

    /// The name of [`TableHistory`](crate::TableHistory) of this table.
    const HISTORY_VIEW: &'static str;

    /// The stored types of changes of its rows: read, inserted, updated, deleted, moved.
    fn shapes() -> &'static [Shape];

    /// The stored types of what is about all of it: truncated, schema.
    fn table_shapes() -> &'static [Shape];

    /// The key in these columns.
    ///
    /// # Errors
    ///
    /// [`ColumnError`] when one is missing or is no such value.
    fn key_of(columns: &Columns) -> Result<Self::Key, ColumnError>;

    /// The row with these columns.
    ///
    /// # Errors
    ///
    /// [`ColumnError`] when one is missing or is no such value.
    fn from_columns(row: &ReceivedRow<'_>) -> Result<Self, ColumnError>;

    /// The columns of the row.
    fn to_columns(&self) -> Columns;

    /// The names of the columns of the key.
    fn key_names() -> &'static [&'static str];
}

/// The columns of a row as they were received.
///
/// ```
/// use annals_cdc::{Columns, ReceivedRow, TableName};
///
/// let columns = Columns::default().with("id", Some("42"));
/// let row = ReceivedRow { columns: &columns, unchanged: &[], schema: 1 };
/// assert_eq!(row.column::<i64>(&TableName::parse("orders"), "id")?, 42);
/// # Ok::<_, annals_cdc::ColumnError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct ReceivedRow<'a> {
    /// The columns that were sent.
    pub columns: &'a Columns,
    /// The columns that did not change and were not sent.
    pub unchanged: &'a [Arc<str>],
    /// The number of the table's schema.
    pub schema: u32,
}

/// A column that a type cannot be read from.
///
/// ```
/// use annals_cdc::{Columns, ColumnError, ReceivedRow, TableName};
///
/// let columns = Columns::default().with("id", Some("x"));
/// let row = ReceivedRow { columns: &columns, unchanged: &[], schema: 4 };
/// let orders = TableName::new("public", "orders");
/// let error = row.column::<i64>(&orders, "status").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "table `public.orders` has no column `status` since schema 4: rename the field, or give it \
///      `#[column(default)]`",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnError {
    /// There is no such column.
    Missing {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
        /// The number of the table's schema.
        schema: u32,
    },
    /// It did not change and was not sent.
    Unchanged {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// Its value is another one than the type can hold.
    Value {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
        /// What is wrong.
        what: String,
    },
}

impl fmt::Display for ColumnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ColumnError::Missing {
                table,
                column,
                schema,
            } => write!(
                f,
                "table `{table}` has no column `{column}` since schema {schema}: rename the \
                 field, or give it `#[column(default)]`"
            ),
            ColumnError::Unchanged { table, column } => write!(
                f,
                "column `{column}` did not change and was not sent: declare it `Toasted<…>`, or \
                 `alter table {table} replica identity full`, or read the table as `TableOf`, \
                 which keeps it"
            ),
            ColumnError::Value {
                table,
                column,
                what,
            } => write!(f, "column `{column}` of table `{table}`: {what}"),
        }
    }
}

impl std::error::Error for ColumnError {}

impl ReceivedRow<'_> {
    /// A column as a type.
    ///
    /// # Errors
    ///
    /// [`ColumnError`] when it is missing or is no such value.
    pub fn column<T: FromColumn>(&self, table: &TableName, column: &str) -> Result<T, ColumnError> {
        match self.optional(table, column)? {
            Some(value) => Ok(value),
            None => Err(ColumnError::Missing {
                table: table.clone(),
                column: column.to_owned(),
                schema: self.schema,
            }),
        }
    }

    /// A column as a type; nothing when there is no such column.
    ///
    /// # Errors
    ///
    /// [`ColumnError`] when it is no such value.
    pub fn optional<T: FromColumn>(
        &self,
        table: &TableName,
        column: &str,
    ) -> Result<Option<T>, ColumnError> {
        if let Some(text) = self.columns.get(column) {
            let value = T::from_column(text).map_err(|what| ColumnError::Value {
                table: table.clone(),
                column: column.to_owned(),
                what,
            })?;
            return Ok(Some(value));
        }
        if !self.unchanged.iter().any(|name| &**name == column) {
            return Ok(None);
        }
        match T::unchanged() {
            Some(value) => Ok(Some(value)),
            None => Err(ColumnError::Unchanged {
                table: table.clone(),
                column: column.to_owned(),
            }),
        }
    }
}
