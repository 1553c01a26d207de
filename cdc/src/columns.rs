//! The values of a row, as the source writes them.

use std::fmt;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Columns of a row with their values, in the order of the table: the text that PostgreSQL writes
/// for a value, or null.
///
/// ```
/// use annals_cdc::Columns;
///
/// let row = Columns::default().with("id", Some("42")).with("notes", None);
/// assert_eq!(row.get("id"), Some(Some("42")));
/// assert_eq!(row.get("notes"), Some(None));
/// assert_eq!(row.get("status"), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Columns(Vec<(Arc<str>, Option<String>)>);

impl Columns {
    /// With one more column.
    #[must_use]
    pub fn with(mut self, name: &str, value: Option<&str>) -> Columns {
        self.push(name.into(), value.map(str::to_owned));
        self
    }

    /// With room for so many.
    pub(crate) fn with_capacity(columns: usize) -> Columns {
        Columns(Vec::with_capacity(columns))
    }

    /// Adds a column.
    pub fn push(&mut self, name: Arc<str>, value: Option<String>) {
        self.0.push((name, value));
    }

    /// The value of a column: null is `Some(None)`, a column that is not here `None`.
    pub fn get(&self, name: &str) -> Option<Option<&str>> {
        let (_, value) = self.0.iter().find(|(of, _)| &**of == name)?;
        Some(value.as_deref())
    }

    /// Sets the value of a column, which is added at the end when it is not here.
    pub fn set(&mut self, name: &Arc<str>, value: Option<String>) {
        match self.0.iter_mut().find(|(of, _)| of == name) {
            Some((_, old)) => *old = value,
            None => self.push(Arc::clone(name), value),
        }
    }

    /// Those that are named, in the order here.
    #[must_use]
    pub fn only(&self, names: &[Arc<str>]) -> Columns {
        let named = self.0.iter().filter(|(name, _)| names.contains(name));
        Columns(named.cloned().collect())
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, Option<&str>)> {
        self.0.iter().map(|(name, value)| (name, value.as_deref()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Arc<str>, Option<String>)> for Columns {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Option<String>)>>(columns: I) -> Columns {
        Columns(columns.into_iter().collect())
    }
}

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Columns, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Columns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("columns with texts or null")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut columns = Columns::default();
                while let Some((name, value)) = map.next_entry::<String, Option<String>>()? {
                    columns.push(name.into(), value);
                }
                Ok(columns)
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_keep_their_order_and_null_through_json() {
        let row = Columns::default()
            .with("z", Some("1"))
            .with("a", None)
            .with("m", Some(""));
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(text, r#"{"z":"1","a":null,"m":""}"#);
        assert_eq!(serde_json::from_str::<Columns>(&text).unwrap(), row);
    }
}
