//! Tables: their names, and what a source says of their columns.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::key::escaped;

/// A name as SQL writes it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A name that begins in quotes, and what comes after it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(again) => {
                name.push('"');
                rest = again;
            }
            None => return Some((name, after)),
        }
    }
}

/// The name of a table, in two parts, as the server has them: not quoted.
///
/// ```
/// use annals_cdc::TableName;
///
/// let orders = TableName::new("public", "orders");
/// assert_eq!(orders.to_string(), "public.orders");
/// assert_eq!(orders.quoted(), r#""public"."orders""#);
/// assert_eq!(TableName::parse("orders"), orders);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// The schema that it is in.
    pub schema: Arc<str>,
    /// Its own name.
    pub name: Arc<str>,
}

impl TableName {
    /// The table of this name in a schema.
    pub fn new(schema: &str, name: &str) -> TableName {
        TableName {
            schema: schema.into(),
            name: name.into(),
        }
    }

    /// `schema.name`, split at the first dot; without one the schema is `public`. A part may be
    /// quoted as in SQL.
    ///
    /// ```
    /// use annals_cdc::TableName;
    ///
    /// let odd = TableName::parse(r#""a.b"."c""d""#);
    /// assert_eq!(odd, TableName::new("a.b", "c\"d"));
    /// ```
    pub fn parse(text: &str) -> TableName {
        let (first, rest) = match unquoted(text) {
            Some((first, rest)) => (first, rest.strip_prefix('.')),
            None => match text.split_once('.') {
                Some((first, rest)) => (first.to_owned(), Some(rest)),
                None => (text.to_owned(), None),
            },
        };
        match rest.map(|rest| (rest, unquoted(rest))) {
            Some((_, Some((name, "")))) => TableName::new(&first, &name),
            Some((name, _)) => TableName::new(&first, name),
            None => TableName::new("public", &first),
        }
    }

    /// As SQL names it.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }

    /// As events and streams name it: both parts with [escaped] dots and dashes.
    ///
    /// ```
    /// use annals_cdc::TableName;
    ///
    /// assert_eq!(TableName::new("a.b", "c-d").stored(), "a%2Eb.c%2Dd");
    /// ```
    pub fn stored(&self) -> String {
        format!("{}.{}", escaped(&self.schema), escaped(&self.name))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// What a table sends of an old row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(clippy::exhaustive_enums)]
pub enum Identity {
    /// Its primary key, if it has one.
    Default,
    /// Nothing.
    Nothing,
    /// All of it.
    Full,
    /// The columns of an index.
    Index,
}

/// A column of a table.
///
/// ```
/// # fn example(column: &annals_cdc::Column) {
/// println!("{} {}", column.name, column.type_name);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)]
pub struct Column {
    /// Its name.
    pub name: Arc<str>,
    /// The name of its type; `oid 16400` when the source did not name it.
    #[serde(rename = "type")]
    pub type_name: Arc<str>,
    /// The number of its type, which differs per database for types of users.
    pub oid: u32,
    /// What is said of the type, such as a length; -1 when nothing is.
    pub typmod: i32,
    /// Whether it belongs to the key.
    pub key: bool,
}

/// What a source says of a table.
///
/// ```
/// # fn example(schema: &annals_cdc::TableSchema) {
/// println!("{} has {} columns", schema.table, schema.columns.len());
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)]
pub struct TableSchema {
    /// The table.
    pub table: TableName,
    /// What it sends of old rows.
    pub identity: Identity,
    /// Its columns, in order.
    pub columns: Vec<Column>,
}

impl TableSchema {
    /// The names of the columns of the key, in order.
    pub fn key(&self) -> Vec<Arc<str>> {
        let key = self.columns.iter().filter(|column| column.key);
        key.map(|column| Arc::clone(&column.name)).collect()
    }
}

/// The name of a type that every PostgreSQL has under this number.
///
/// ```
/// assert_eq!(annals_cdc::type_name(20), Some("bigint"));
/// assert_eq!(annals_cdc::type_name(16_400), None);
/// ```
pub fn type_name(oid: u32) -> Option<&'static str> {
    Some(match oid {
        16 => "boolean",
        17 => "bytea",
        18 => "\"char\"",
        19 => "name",
        20 => "bigint",
        21 => "smallint",
        23 => "integer",
        25 => "text",
        26 => "oid",
        114 => "json",
        142 => "xml",
        650 => "cidr",
        700 => "real",
        701 => "double precision",
        790 => "money",
        829 => "macaddr",
        869 => "inet",
        1000 => "boolean[]",
        1001 => "bytea[]",
        1005 => "smallint[]",
        1007 => "integer[]",
        1009 => "text[]",
        1015 => "character varying[]",
        1016 => "bigint[]",
        1021 => "real[]",
        1022 => "double precision[]",
        1042 => "character",
        1043 => "character varying",
        1082 => "date",
        1083 => "time without time zone",
        1114 => "timestamp without time zone",
        1115 => "timestamp without time zone[]",
        1182 => "date[]",
        1184 => "timestamp with time zone",
        1185 => "timestamp with time zone[]",
        1186 => "interval",
        1231 => "numeric[]",
        1266 => "time with time zone",
        1560 => "bit",
        1562 => "bit varying",
        1700 => "numeric",
        2950 => "uuid",
        2951 => "uuid[]",
        3802 => "jsonb",
        3807 => "jsonb[]",
        3904 => "int4range",
        3906 => "numrange",
        3908 => "tsrange",
        3910 => "tstzrange",
        3912 => "daterange",
        3926 => "int8range",
        _ => return None,
    })
}
