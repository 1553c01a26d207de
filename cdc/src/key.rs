//! Names of streams: of a table, and of a row by its key.

use std::fmt::Write as _;

use annals_core::{Invalid, StreamId};
use sha2::{Digest as _, Sha256};

use crate::columns::Columns;
use crate::schema::TableName;

/// A part of a name in which `.`, `-`, `%`, `,` and control characters are escaped with `%`.
///
/// ```
/// assert_eq!(annals_cdc::escaped("a-b,c"), "a%2Db%2Cc");
/// assert_eq!(annals_cdc::escaped("größe 7"), "größe 7");
/// ```
pub fn escaped(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    escape(&mut text, part);
    text
}

/// Adds a part, escaped.
fn escape(text: &mut String, part: &str) {
    for character in part.chars() {
        if character.is_control() || ".-%,".contains(character) {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a text cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
        } else {
            text.push(character);
        }
    }
}

/// The stream of what is about a whole table: `public.orders`.
///
/// # Errors
///
/// [`Invalid`] when the name is too long for a stream.
///
/// ```
/// use annals_cdc::{TableName, table_stream};
///
/// let orders = TableName::new("public", "orders");
/// assert_eq!(table_stream("", &orders)?.as_str(), "public.orders");
/// assert_eq!(table_stream("shop", &orders)?.as_str(), "shop.public.orders");
/// # Ok::<_, annals_core::Invalid>(())
/// ```
pub fn table_stream(prefix: &str, table: &TableName) -> Result<StreamId, Invalid> {
    StreamId::new(category(prefix, table))
}

/// The stream of a row: the table, and its key with parts joined by commas. A key that is too long
/// is named by a hash; the key itself is in the events. Without a key it is the table's own stream.
///
/// # Errors
///
/// [`Invalid`] when the name of the table is too long for a stream.
///
/// ```
/// use annals_cdc::{Columns, TableName, row_stream};
///
/// let orders = TableName::new("public", "orders");
/// let key = Columns::default().with("shop", Some("a-b")).with("id", Some("42"));
/// assert_eq!(row_stream("", &orders, &key)?.as_str(), "public.orders-a%2Db,42");
/// # Ok::<_, annals_core::Invalid>(())
/// ```
pub fn row_stream(prefix: &str, table: &TableName, key: &Columns) -> Result<StreamId, Invalid> {
    row_stream_in(&category(prefix, table), key)
}

/// The stream of a row of a table with this category.
pub(crate) fn row_stream_in(category: &str, key: &Columns) -> Result<StreamId, Invalid> {
    if key.is_empty() {
        return StreamId::new(category);
    }
    let mut name = String::with_capacity(category.len() + 24);
    name.push_str(category);
    name.push('-');
    let id = name.len();
    for (_, value) in key.iter() {
        if name.len() > id {
            name.push(',');
        }
        match value {
            // A key of one empty text would leave nothing.
            Some("") => name.push('%'),
            Some(value) => escape_id(&mut name, value),
            None => name.push_str("%null"),
        }
    }
    if name.len() > StreamId::BYTES_MAX {
        let hash = Sha256::digest(&name.as_bytes()[id..]);
        name.truncate(id);
        name.push('#');
        for byte in &hash[..16] {
            let _ = write!(name, "{byte:02x}");
        }
    }
    StreamId::new(name)
}

/// The category of the streams of a table.
pub(crate) fn category(prefix: &str, table: &TableName) -> String {
    if prefix.is_empty() {
        table.stored()
    } else {
        format!("{}.{}", escaped(prefix), table.stored())
    }
}

/// The id part of a stream may hold dots and dashes that are no parts of numbers.
fn escape_id(name: &mut String, value: &str) {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number || is_uuid(value) {
        name.push_str(value);
        return;
    }
    // A hash begins with `#`.
    match value.strip_prefix('#') {
        Some(rest) => {
            name.push_str("%23");
            escape(name, rest);
        }
        None => escape(name, value),
    }
}

fn is_uuid(value: &str) -> bool {
    value.len() == 36 && uuid::Uuid::try_parse(value).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(key: &[Option<&str>], stream: &str) {
        let table = TableName::new("public", "t");
        let columns = key.iter().enumerate();
        let key = columns.fold(Columns::default(), |key, (n, value)| {
            key.with(&n.to_string(), *value)
        });
        assert_eq!(row_stream("", &table, &key).unwrap().as_str(), stream);
    }

    #[test]
    fn keys_are_escaped_so_that_no_two_share_a_stream() {
        check(&[Some("42")], "public.t-42");
        check(&[Some("-7")], "public.t--7");
        check(&[Some("a,b")], "public.t-a%2Cb");
        check(&[Some("a"), Some("b")], "public.t-a,b");
        check(&[Some("a%2Cb")], "public.t-a%252Cb");
        check(&[Some("")], "public.t-%");
        check(&[None], "public.t-%null");
        check(&[Some("\u{0}")], "public.t-%00");
        check(&[Some("#x")], "public.t-%23x");
        check(&[], "public.t");
    }

    #[test]
    fn a_long_key_is_named_by_a_whole_hash() {
        let table = TableName::new("public", "t");
        let of = |last: &str| {
            let key = Columns::default().with("k", Some(&("k".repeat(300) + last)));
            row_stream("", &table, &key).unwrap()
        };
        let stream = of("a");
        assert!(
            stream.id().starts_with('#') && stream.id().len() == 33,
            "{stream}"
        );
        assert_eq!(stream, of("a"));
        assert_ne!(stream, of("b"));
    }
}
