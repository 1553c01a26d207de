//! What a filter or a query means in terms of indexes.

use std::collections::BTreeSet;

use annals_core::{Condition, Direction, Filter, Position, Query, QueryItem, StreamId, Tag};
use rusqlite::Connection;

use crate::positions::{Node, Source, Walk};
use crate::statements as sql;
use crate::stream_cache::{category_key, tag_key};
use crate::streams;

/// When more streams than this have a prefix they are not walked one by one; then every event's
/// stream name is compared.
const PREFIX_STREAMS_MAX: usize = 256;

/// A name that sorts after every name that starts with a prefix: the prefix and this, many times.
const LAST_CHARACTER: &str = "\u{10ffff}";

/// How to find what is wanted.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Nothing that is stored can match.
    Nothing,
    /// Looking at every event, in order; of these kinds only, when some are named.
    Scan { kinds: Option<Kinds> },
    /// By positions from the indexes. The kinds are there when nothing else narrows it, so that a
    /// scan would do as well.
    Index { node: Node, kinds: Option<Kinds> },
}

/// A set of kinds, asked for once an event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kinds {
    wanted: Vec<bool>,
}

impl Kinds {
    fn new(keys: &BTreeSet<i64>) -> Kinds {
        let mut wanted = vec![
            false;
            keys.last()
                .map_or(0, |last| last.cast_unsigned() as usize + 1)
        ];
        for key in keys {
            wanted[key.cast_unsigned() as usize] = true;
        }
        Kinds { wanted }
    }

    pub(crate) fn contains(&self, kind: i64) -> bool {
        self.wanted
            .get(kind.cast_unsigned() as usize)
            .copied()
            .unwrap_or(false)
    }
}

/// The plan for a filter. What it finds must still be [matched](Filter::matches), except for types.
pub(crate) fn for_filter(
    connection: &Connection,
    filter: &Filter,
) -> Result<Plan, rusqlite::Error> {
    let mut all = Vec::new();
    let kinds = kinds_of(connection, filter)?;
    if let Some(kinds) = &kinds {
        if kinds.is_empty() {
            return Ok(Plan::Nothing);
        }
        all.push(any_kind(kinds));
    }
    let by_kinds_alone = filter.tags.is_empty() && filter.stream_prefixes.is_empty();
    for tag in &filter.tags {
        let Some(node) = tagged(connection, tag)? else {
            return Ok(Plan::Nothing);
        };
        all.push(node);
    }
    if !filter.stream_prefixes.is_empty()
        && let Some(streams) = streams_of(connection, &filter.stream_prefixes)?
    {
        if streams.is_empty() {
            return Ok(Plan::Nothing);
        }
        all.push(any(streams));
    }
    let kinds = kinds.as_ref().map(Kinds::new);
    Ok(match all.pop() {
        None => Plan::Scan { kinds },
        Some(only) if all.is_empty() => Plan::Index {
            node: only,
            kinds: kinds.filter(|_| by_kinds_alone),
        },
        Some(last) => {
            all.push(last);
            Plan::Index {
                node: Node::All(all),
                kinds: None,
            }
        }
    })
}

/// The plan for a query. What it finds must still be [matched](Query::matches).
pub(crate) fn for_query(connection: &Connection, query: &Query) -> Result<Plan, rusqlite::Error> {
    if query
        .items()
        .iter()
        .any(|item| *item == QueryItem::default())
    {
        return Ok(Plan::Scan { kinds: None });
    }
    let mut items = Vec::new();
    for item in query.items() {
        items.extend(for_item(connection, item)?);
    }
    Ok(match items.is_empty() {
        true => Plan::Nothing,
        false => Plan::Index {
            node: any(items),
            kinds: None,
        },
    })
}

/// None when nothing that is stored can match.
fn for_item(connection: &Connection, item: &QueryItem) -> Result<Option<Node>, rusqlite::Error> {
    let mut all = Vec::new();
    for tag in &item.tags {
        let Some(node) = tagged(connection, tag)? else {
            return Ok(None);
        };
        all.push(node);
    }
    if !item.streams.is_empty() {
        let mut streams = Vec::new();
        for stream in &item.streams {
            streams.extend(stream_source(connection, stream)?);
        }
        if streams.is_empty() {
            return Ok(None);
        }
        all.push(any(streams));
    }
    if !item.types.is_empty() {
        let mut kinds = BTreeSet::new();
        for name in &item.types {
            kinds.extend(keys(connection, sql::KINDS_OF_TYPE, name.as_str())?);
        }
        if kinds.is_empty() {
            return Ok(None);
        }
        all.push(any_kind(&kinds));
    }
    if all.len() > 1 {
        Ok(Some(Node::All(all)))
    } else {
        Ok(all.pop())
    }
}

/// The first position after the condition's at which its query matches, up to `head`; all of the
/// range is examined.
pub(crate) fn first_match(
    connection: &Connection,
    condition: &Condition,
    head: u64,
) -> Result<Option<Position>, rusqlite::Error> {
    let after = condition.after.unwrap_or(Position::START);
    let mut walk = Walk::new(connection, Direction::Forward, after.next().get()..=head);
    if walk.range.is_empty() {
        return Ok(None);
    }
    let mut node = match for_query(connection, &condition.query)? {
        Plan::Nothing => return Ok(None),
        Plan::Scan { .. } => Node::source(Source::Every),
        Plan::Index { node, .. } => node,
    };
    let first = walk.first();
    Ok(node.seek(&mut walk, first)?.map(Position::new))
}

/// The kinds that the types and categories of a filter allow; none when it names neither.
fn kinds_of(
    connection: &Connection,
    filter: &Filter,
) -> Result<Option<BTreeSet<i64>>, rusqlite::Error> {
    let mut of_types = BTreeSet::new();
    for name in &filter.types {
        of_types.extend(keys(connection, sql::KINDS_OF_TYPE, name.as_str())?);
    }
    let mut of_categories = BTreeSet::new();
    for name in &filter.categories {
        // A category without kinds of its own is among the others, whose events differ by their
        // stream names only.
        let category = category_key(connection, name)?.unwrap_or(0);
        of_categories.extend(keys(connection, sql::KINDS_OF_CATEGORY, category)?);
    }
    Ok(
        match (filter.types.is_empty(), filter.categories.is_empty()) {
            (true, true) => None,
            (false, true) => Some(of_types),
            (true, false) => Some(of_categories),
            (false, false) => Some(of_types.intersection(&of_categories).copied().collect()),
        },
    )
}

fn keys(
    connection: &Connection,
    statement: &str,
    of: impl rusqlite::ToSql,
) -> Result<Vec<i64>, rusqlite::Error> {
    connection
        .prepare_cached(statement)?
        .query_map([of], |row| row.get(0))?
        .collect()
}

fn tagged(connection: &Connection, tag: &Tag) -> Result<Option<Node>, rusqlite::Error> {
    Ok(tag_key(connection, tag.as_str())?.map(|key| Node::source(Source::Tag(key))))
}

/// None when the stream holds no event.
fn stream_source(
    connection: &Connection,
    stream: &StreamId,
) -> Result<Option<Node>, rusqlite::Error> {
    let row = streams::row(connection, stream)?.filter(|row| row.version > 0);
    Ok(row.map(|row| {
        Node::source(Source::Stream {
            key: row.key,
            versions: row.archived_before.max(1)..=row.version,
        })
    }))
}

/// The streams with one of the prefixes; none when there are too many to be walked one by one.
fn streams_of(
    connection: &Connection,
    prefixes: &[String],
) -> Result<Option<Vec<Node>>, rusqlite::Error> {
    let mut found = Vec::new();
    for prefix in prefixes {
        let up_to = format!(
            "{prefix}{}",
            LAST_CHARACTER.repeat(StreamId::BYTES_MAX / 4 + 1)
        );
        let mut statement = connection.prepare_cached(sql::STREAMS_BY_PREFIX)?;
        // Names without events count as well: a list that was cut off is not all of them.
        let mut names = 0;
        let mut rows = statement.query((prefix, up_to, PREFIX_STREAMS_MAX as i64 + 1))?;
        while let Some(row) = rows.next()? {
            names += 1;
            if let Some(version) = row.get::<_, Option<i64>>(2)? {
                let versions = streams::number(row, 1)?.max(1)..=version.cast_unsigned();
                found.push(Node::source(Source::Stream {
                    key: row.get(0)?,
                    versions,
                }));
            }
            if names > PREFIX_STREAMS_MAX || found.len() > PREFIX_STREAMS_MAX {
                return Ok(None);
            }
        }
    }
    Ok(Some(found))
}

fn any_kind(kinds: &BTreeSet<i64>) -> Node {
    any(kinds
        .iter()
        .map(|kind| Node::source(Source::Kind(*kind)))
        .collect())
}

fn any(mut nodes: Vec<Node>) -> Node {
    match nodes.pop() {
        Some(only) if nodes.is_empty() => only,
        Some(last) => {
            nodes.push(last);
            Node::Any(nodes)
        }
        None => Node::Any(nodes),
    }
}
