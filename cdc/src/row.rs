//! Rows of a table as a type of a program.

use std::fmt;
use std::sync::Arc;

use annals_core::Shape;
use annals_projections::ViewKey;
use bytes::Bytes;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use uuid::Uuid;

use crate::column::{FromColumn, Numeric};
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
///     "table `public.orders` has no column `status` since schema 4: it has `id`; rename the \
///      field, or give it `#[column(default)]`",
/// );
/// let error = row.column::<i64>(&orders, "id").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "column `id` of table `public.orders` does not fit its field, which is `i64`: `x` is no \
///      `i64`; declare the field as a type that reads it, such as `String`",
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
        /// The number of the table's schema; 0 when it is not known.
        schema: u32,
        /// The columns that it has.
        has: Vec<String>,
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
        /// The type that the field is declared as.
        expected: Box<str>,
        /// A type that reads what was found.
        fits: Box<str>,
    },
}

impl fmt::Display for ColumnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ColumnError::Missing {
                table,
                column,
                schema,
                has,
            } => {
                write!(f, "table `{table}` has no column `{column}`")?;
                if *schema > 0 {
                    write!(f, " since schema {schema}")?;
                }
                let has: Vec<_> = has.iter().map(|name| format!("`{name}`")).collect();
                write!(
                    f,
                    ": it has {}; rename the field, or give it `#[column(default)]`",
                    has.join(", ")
                )
            }
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
                expected,
                fits,
            } => write!(
                f,
                "column `{column}` of table `{table}` does not fit its field, which is \
                 `{expected}`: {what}; declare the field as a type that reads it, such as `{fits}`"
            ),
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
                has: self.columns.iter().map(|(of, _)| of.to_string()).collect(),
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
                expected: type_name::<T>().into(),
                fits: match text {
                    Some(text) => type_of(text).into(),
                    None => format!("Option<{}>", type_name::<T>()).into(),
                },
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

/// The name of a type without the modules that it is in.
fn type_name<T>() -> String {
    let whole = std::any::type_name::<T>();
    let mut name = String::new();
    for part in whole.split_inclusive(|of: char| !(of.is_alphanumeric() || of == '_' || of == ':'))
    {
        name.push_str(part.rsplit("::").next().unwrap_or(part));
    }
    name
}

/// A type that reads this text.
fn type_of(text: &str) -> &'static str {
    fn reads<T: FromColumn>(text: &str) -> bool {
        T::from_column(Some(text)).is_ok()
    }
    type Reads = fn(&str) -> bool;
    let types: [(Reads, &'static str); 9] = [
        (reads::<bool>, "bool"),
        (reads::<i64>, "i64"),
        (reads::<Numeric>, "Numeric"),
        (reads::<Uuid>, "Uuid"),
        (reads::<DateTime<Utc>>, "DateTime<Utc>"),
        (reads::<NaiveDateTime>, "NaiveDateTime"),
        (reads::<NaiveDate>, "NaiveDate"),
        (reads::<NaiveTime>, "NaiveTime"),
        (reads::<Bytes>, "Bytes"),
    ];
    let found = types.iter().find(|(reads, _)| reads(text));
    found.map_or("String", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_fits_is_named() {
        for (text, name) in [
            ("t", "bool"),
            ("7", "i64"),
            ("12.50", "Numeric"),
            ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "Uuid"),
            ("2016-11-04 11:51:30.123456+00", "DateTime<Utc>"),
            ("2016-11-04 13:51:30", "NaiveDateTime"),
            ("2016-11-04", "NaiveDate"),
            ("13:51:30", "NaiveTime"),
            ("\\x00ff", "Bytes"),
            ("pending", "String"),
        ] {
            assert_eq!(type_of(text), name, "{text}");
        }
        assert_eq!(
            type_name::<Option<DateTime<Utc>>>(),
            "Option<DateTime<Utc>>"
        );
        assert_eq!(type_name::<Vec<(i64, String)>>(), "Vec<(i64, String)>");
    }
}
