//! The types of indexes, so that a query by an index compares like with like.

use std::any::{TypeId, type_name};
use std::ops::Bound;

use annals_core::Invalid;

use crate::key::ViewKey;

/// Begins the entry of an optional value that is there. One that is absent has no text, is in no
/// range, and so is not below every other.
const PRESENT: char = '=';

/// The type of an index: what its entries are made of.
#[derive(Clone, Copy, Debug)]
pub struct IndexType {
    id: TypeId,
    name: &'static str,
    of_key: fn() -> String,
    optional: bool,
}

impl PartialEq for IndexType {
    fn eq(&self, other: &IndexType) -> bool {
        (self.id, self.optional) == (other.id, other.optional)
    }
}

impl Eq for IndexType {}

/// A range of the entries of an index.
pub(crate) type EntryRange = (Bound<String>, Bound<String>);

impl IndexType {
    /// Of values of this type.
    pub fn of<K: ViewKey>() -> IndexType {
        IndexType {
            id: TypeId::of::<K>(),
            name: type_name::<K>(),
            of_key: K::type_of_key,
            optional: false,
        }
    }

    /// Of values of this type that may be absent.
    pub fn optional<K: ViewKey>() -> IndexType {
        IndexType {
            optional: true,
            ..IndexType::of::<K>()
        }
    }

    /// The entry of a value that may be absent.
    pub fn entry<K: ViewKey>(value: Option<&K>) -> String {
        value.map_or_else(String::new, |value| format!("{PRESENT}{}", value.to_key()))
    }

    /// What its entries are made of, as a generation names it.
    pub(crate) fn stored_name(&self) -> String {
        let of_key = (self.of_key)();
        match self.optional {
            true => format!("{PRESENT}{of_key}"),
            false => of_key,
        }
    }

    /// The entries that a range of values means.
    pub(crate) fn range<K: ViewKey>(
        &self,
        index: &str,
        (from, to): EntryRange,
    ) -> Result<EntryRange, Invalid> {
        if self.id != TypeId::of::<K>() {
            let asked = type_name::<K>();
            let name = self.name;
            return Err(Invalid::new(format!(
                "index `{index}` is of `{name}`, and the range of `{asked}`: write the values of \
                 the range as `{name}`"
            )));
        }
        if !self.optional {
            return Ok((from, to));
        }
        let present = |text: String| format!("{PRESENT}{text}");
        let from = match from {
            Bound::Unbounded => Bound::Included(PRESENT.to_string()),
            bound => bound.map(present),
        };
        Ok((from, to.map(present)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_entries_are_in_no_range() {
        let index = IndexType::optional::<i64>();
        let at_most = |value: i64| (Bound::Unbounded, Bound::Included(value.to_key()));
        let (from, to) = index.range::<i64>("total", at_most(50)).unwrap();
        let range = (from.as_ref(), to.as_ref());
        let holds = |entry: String| std::ops::RangeBounds::<String>::contains(&range, &entry);
        assert!(holds(IndexType::entry(Some(&50_i64))));
        assert!(holds(IndexType::entry(Some(&-5_i64))));
        assert!(!holds(IndexType::entry(Some(&51_i64))));
        assert!(!holds(IndexType::entry::<i64>(None)));
    }

    #[test]
    fn a_range_of_another_type_is_refused() {
        let range = (Bound::Unbounded, Bound::Unbounded);
        let refused = IndexType::of::<i64>()
            .range::<i32>("total", range)
            .unwrap_err();
        assert!(
            refused.to_string().starts_with("index `total` is of `i64`"),
            "{refused}"
        );
    }
}
