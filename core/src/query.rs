//! Which events: queries that decisions guard, and filters that readers of the log use.

use std::ops::{Bound, RangeBounds};

use chrono::{DateTime, Utc};

use crate::error::Invalid;
use crate::event::RecordedEvent;
use crate::stream::StreamId;
use crate::tag::Tag;

/// An OR of items; a decision's consistency boundary. An event matches when one of the items does.
///
/// ```
/// use annals_core::{Query, QueryItem};
///
/// let query = Query::tagged(["course:c1".parse()?]).or(
///     QueryItem::types(["student.enrolled"]).tag("student:s1".parse()?),
/// );
/// assert_eq!(query.items().len(), 2);
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    items: Vec<QueryItem>,
}

/// An event matches when its type is among the types (none given: any), its stream among the
/// streams (none given: any), and it has all of the tags.
///
/// ```
/// use annals_core::QueryItem;
///
/// let item = QueryItem::types(["invoice.numbered"]);
/// assert!(item.tags.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueryItem {
    /// One of these types.
    pub types: Vec<String>,
    /// One of these streams.
    pub streams: Vec<StreamId>,
    /// All of these tags.
    pub tags: Vec<Tag>,
}

impl Query {
    /// Every event there is.
    pub fn all() -> Query {
        Query::from(QueryItem::default())
    }

    /// Events with all of these tags.
    pub fn tagged(tags: impl IntoIterator<Item = Tag>) -> Query {
        Query::from(QueryItem {
            tags: tags.into_iter().collect(),
            ..QueryItem::default()
        })
    }

    /// Items of a query.
    pub const ITEMS_MAX: usize = 1_000;

    /// Events of one of these types.
    pub fn types(types: impl IntoIterator<Item = impl Into<String>>) -> Query {
        Query::from(QueryItem::types(types))
    }

    /// Events of one stream.
    pub fn stream(stream: StreamId) -> Query {
        Query::from(QueryItem {
            streams: vec![stream],
            ..QueryItem::default()
        })
    }

    /// Also what `item` matches.
    #[must_use]
    pub fn or(mut self, item: impl Into<Query>) -> Query {
        for item in item.into().items {
            if !self.items.contains(&item) {
                self.items.push(item);
            }
        }
        self
    }

    /// Narrows every item that names no type to these types.
    #[must_use]
    pub fn only_types(mut self, types: &[&str]) -> Query {
        for item in self.items.iter_mut().filter(|item| item.types.is_empty()) {
            item.types = types.iter().map(|name| (*name).into()).collect();
        }
        self
    }

    /// The items, of which one must match.
    pub fn items(&self) -> &[QueryItem] {
        &self.items
    }

    /// Whether `event` matches.
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        self.items.iter().any(|item| item.matches(event))
    }

    /// What no store may accept.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the query has no item, more of something than is allowed, or a name that
    /// holds a control character.
    ///
    /// ```
    /// use annals_core::{Query, Tag};
    ///
    /// let tags = (0..65).map(|n| Tag::new("n", n.to_string())).collect::<Result<Vec<_>, _>>()?;
    /// let refused = Query::tagged(tags).check().unwrap_err();
    /// assert_eq!(refused.to_string(), "item 0 of the query has 65 tags, at most 64 are allowed");
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    pub fn check(&self) -> Result<(), Invalid> {
        if self.items.is_empty() {
            return Err(Invalid::new("a query without items"));
        }
        if self.items.len() > Query::ITEMS_MAX {
            return Err(Invalid::new(format!(
                "a query with {} items, at most {} are allowed",
                self.items.len(),
                Query::ITEMS_MAX
            )));
        }
        for (index, item) in self.items.iter().enumerate() {
            for (what, found, max) in [
                ("types", item.types.len(), QueryItem::NAMES_MAX),
                ("streams", item.streams.len(), QueryItem::NAMES_MAX),
                ("tags", item.tags.len(), crate::Limits::TAGS_MAX),
            ] {
                if found > max {
                    return Err(Invalid::new(format!(
                        "item {index} of the query has {found} {what}, at most {max} are allowed"
                    )));
                }
            }
            check_names("query", "type", &item.types)?;
        }
        Ok(())
    }
}

/// Refuses what no event has: a store could not even ask for some of it.
fn check_names(by: &str, what: &str, names: &[String]) -> Result<(), Invalid> {
    let mut names = names.iter();
    let Some(name) = names.find(|name| name.chars().any(char::is_control)) else {
        return Ok(());
    };
    let start: String = name.chars().take(32).collect();
    Err(Invalid::new(format!(
        "the {by} names the {what} `{}`, which holds a control character: no event has one",
        start.escape_debug()
    )))
}

impl From<QueryItem> for Query {
    fn from(item: QueryItem) -> Query {
        Query { items: vec![item] }
    }
}

impl QueryItem {
    /// Types, and streams, of an item.
    pub const NAMES_MAX: usize = 1_000;

    /// Events of one of these types.
    pub fn types(types: impl IntoIterator<Item = impl Into<String>>) -> QueryItem {
        QueryItem {
            types: types.into_iter().map(Into::into).collect(),
            ..QueryItem::default()
        }
    }

    /// … that also have this tag.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> QueryItem {
        self.tags.push(tag);
        self
    }

    /// … in this stream (or in another that is named).
    #[must_use]
    pub fn stream(mut self, stream: StreamId) -> QueryItem {
        self.streams.push(stream);
        self
    }

    /// Whether `event` matches.
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        (self.types.is_empty() || self.types.iter().any(|name| **name == *event.event_type))
            && (self.streams.is_empty() || self.streams.contains(&event.stream))
            && self.tags.iter().all(|tag| event.tags.contains(tag))
    }
}

/// A span of time, both ends included; open where nothing is said.
type Span = (Bound<DateTime<Utc>>, Bound<DateTime<Utc>>);

/// Which events a reader of the log wants. Everything that is given must hold; a list means one of
/// its entries, tags mean all.
///
/// ```
/// use annals_core::Filter;
///
/// let filter = Filter::default().category("account").types(["account.opened", "account.closed"]);
/// assert!(!filter.is_all());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// One of these types.
    pub types: Vec<String>,
    /// One of these categories.
    pub categories: Vec<String>,
    /// A stream whose name starts with one of these.
    pub stream_prefixes: Vec<String>,
    /// All of these tags.
    pub tags: Vec<Tag>,
    /// Happened in this span.
    pub occurred: Span,
    /// Recorded in this span.
    pub recorded: Span,
}

impl Default for Filter {
    fn default() -> Filter {
        Filter {
            types: Vec::new(),
            categories: Vec::new(),
            stream_prefixes: Vec::new(),
            tags: Vec::new(),
            occurred: (Bound::Unbounded, Bound::Unbounded),
            recorded: (Bound::Unbounded, Bound::Unbounded),
        }
    }
}

impl Filter {
    /// Events of one of these types (added to those already named).
    #[must_use]
    pub fn types(mut self, types: impl IntoIterator<Item = impl Into<String>>) -> Filter {
        self.types.extend(types.into_iter().map(Into::into));
        self
    }

    /// Events of this category (or of another that is named).
    #[must_use]
    pub fn category(mut self, category: impl Into<String>) -> Filter {
        self.categories.push(category.into());
        self
    }

    /// Events of streams whose name starts with `prefix` (or with another that is named).
    #[must_use]
    pub fn stream_prefix(mut self, prefix: impl Into<String>) -> Filter {
        self.stream_prefixes.push(prefix.into());
        self
    }

    /// Events that also have this tag.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> Filter {
        self.tags.push(tag);
        self
    }

    /// Events that happened in `span`.
    #[must_use]
    pub fn occurred(mut self, span: impl RangeBounds<DateTime<Utc>>) -> Filter {
        self.occurred = (span.start_bound().cloned(), span.end_bound().cloned());
        self
    }

    /// Events that were recorded in `span`.
    #[must_use]
    pub fn recorded(mut self, span: impl RangeBounds<DateTime<Utc>>) -> Filter {
        self.recorded = (span.start_bound().cloned(), span.end_bound().cloned());
        self
    }

    /// Whether it lets everything through.
    pub fn is_all(&self) -> bool {
        *self == Filter::default()
    }

    /// What no store may accept.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when a name holds a control character, as no name of an event does.
    ///
    /// ```
    /// use annals_core::Filter;
    ///
    /// let refused = Filter::default().category("a\0b").check().unwrap_err();
    /// assert!(refused.to_string().contains("the category `a\\0b`"));
    /// ```
    pub fn check(&self) -> Result<(), Invalid> {
        check_names("filter", "type", &self.types)?;
        check_names("filter", "category", &self.categories)?;
        check_names("filter", "start of streams", &self.stream_prefixes)
    }

    /// Whether a stream of this name can hold events that match.
    pub fn matches_stream(&self, stream: &StreamId) -> bool {
        (self.categories.is_empty()
            || self
                .categories
                .iter()
                .any(|category| category == stream.category()))
            && (self.stream_prefixes.is_empty()
                || self
                    .stream_prefixes
                    .iter()
                    .any(|prefix| stream.as_str().starts_with(prefix.as_str())))
    }

    pub(crate) fn occurred_in(&self, moment: DateTime<Utc>) -> bool {
        self.occurred.contains(&moment)
    }

    pub(crate) fn recorded_in(&self, moment: DateTime<Utc>) -> bool {
        self.recorded.contains(&moment)
    }

    /// Whether `event` matches.
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        (self.types.is_empty() || self.types.iter().any(|name| **name == *event.event_type))
            && self.matches_stream(&event.stream)
            && self.tags.iter().all(|tag| event.tags.contains(tag))
            && self.occurred.contains(&event.occurred_at)
            && self.recorded.contains(&event.recorded_at)
    }
}
