//! Filters and queries as SQL: positions from the indexes, in order, with everything that an event
//! must be besides.
//!
//! Nothing of a user's is in the text of a statement: it is a parameter.

use std::fmt::Write as _;
use std::ops::Bound;

use annals_core::{Direction, Filter, Query, StreamId, Tag};
use chrono::{DateTime, Utc};
use sqlx::postgres::PgArguments;
use sqlx::{Arguments, Encode, Error, Postgres, Type};

use crate::row::COLUMNS;

/// What one event must be; nothing given means anything. Tags mean all of them, other lists one of
/// their entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    types: &'a [String],
    streams: &'a [StreamId],
    tags: &'a [Tag],
    categories: &'a [String],
    prefixes: &'a [String],
    occurred: (Bound<DateTime<Utc>>, Bound<DateTime<Utc>>),
}

impl<'a> Wanted<'a> {
    const ANYTHING: Wanted<'static> = Wanted {
        types: &[],
        streams: &[],
        tags: &[],
        categories: &[],
        prefixes: &[],
        occurred: (Bound::Unbounded, Bound::Unbounded),
    };

    /// What a filter wants, its span of recorded times apart.
    pub(crate) fn by_filter(filter: &'a Filter) -> Wanted<'a> {
        Wanted {
            types: &filter.types,
            tags: &filter.tags,
            categories: &filter.categories,
            prefixes: &filter.stream_prefixes,
            occurred: filter.occurred,
            ..Wanted::ANYTHING
        }
    }

    /// What a query wants: one of these.
    pub(crate) fn by_query(query: &'a Query) -> Vec<Wanted<'a>> {
        let item = |item: &'a annals_core::QueryItem| Wanted {
            types: &item.types,
            streams: &item.streams,
            tags: &item.tags,
            ..Wanted::ANYTHING
        };
        query.items().iter().map(item).collect()
    }

    /// Whether every event is wanted.
    pub(crate) fn is_anything(&self) -> bool {
        self.types.is_empty()
            && self.streams.is_empty()
            && self.tags.is_empty()
            && self.categories.is_empty()
            && self.is_free_of_residues()
    }

    /// The types, when nothing else is asked for.
    pub(crate) fn types_alone(&self) -> Option<&'a [String]> {
        let of_any_type = Wanted {
            types: &[],
            ..*self
        };
        (!self.types.is_empty() && of_any_type.is_anything()).then_some(self.types)
    }

    /// Whether an index gives exactly what is wanted, so that no page looks at much more than it
    /// gives.
    pub(crate) fn is_direct(&self) -> bool {
        let sources = [
            !self.tags.is_empty(),
            !self.streams.is_empty(),
            !self.types.is_empty(),
        ];
        self.is_free_of_residues()
            && self.categories.is_empty()
            && self.tags.len() <= 1
            && sources.iter().filter(|is_given| **is_given).count() <= 1
    }

    fn is_free_of_residues(&self) -> bool {
        self.prefixes.is_empty() && self.occurred == (Bound::Unbounded, Bound::Unbounded)
    }
}

/// The head, as a part of a statement.
const HEAD: &str = "select coalesce(pg_catalog.max(position), 0) as position from annals.event";

/// A statement in the making. Its first two parameters are the range of positions: after the one,
/// up to and with the other.
#[derive(Debug)]
pub(crate) struct Search {
    arguments: PgArguments,
    given: usize,
    order: &'static str,
    limit: usize,
}

/// The name of an event's stream, looked up for each event: there are far more streams than events
/// on a page.
const NAME: &str = "(select stream.name from annals.stream where stream.key = event.stream)";

/// The text of a statement, and its parameters.
pub(crate) type Statement = (String, PgArguments);

impl Search {
    /// A search for the first `limit` positions in a range.
    pub(crate) fn new(
        after: u64,
        up_to: u64,
        direction: Direction,
        limit: usize,
    ) -> Result<Search, Error> {
        let order = match direction {
            Direction::Forward => "",
            Direction::Backward => " desc",
        };
        let mut search = Search {
            arguments: PgArguments::default(),
            given: 0,
            order,
            limit,
        };
        search.give(after.cast_signed())?;
        search.give(up_to.cast_signed())?;
        Ok(search)
    }

    /// The head, and a page of the events that are one of `wanted`: a row without an event when
    /// there is none.
    pub(crate) fn page(
        mut self,
        wanted: &[Wanted<'_>],
        bytes_max: usize,
    ) -> Result<Statement, Error> {
        let positions = self.positions(wanted)?;
        let order = self.order;
        let bytes = self.give(bytes_max as i64)?;
        let columns = COLUMNS
            .split(", ")
            .map(|column| format!("page.{column}"))
            .collect::<Vec<_>>()
            .join(", ");
        let text = format!(
            "select head.position, {columns}
            from ({HEAD}) as head
            left join lateral (
                select
                    event.*,
                    pg_catalog.sum(pg_catalog.octet_length(payload))
                        over (order by event.position{order} rows unbounded preceding)
                        - pg_catalog.octet_length(payload) as bytes_before
                from ({positions}) as wanted
                join annals.event on event.position = wanted.position
            ) as page on page.bytes_before < {bytes}"
        );
        Ok((text, self.arguments))
    }

    /// The head, and the first position of an event that is one of `wanted`.
    pub(crate) fn first(mut self, wanted: &[Wanted<'_>]) -> Result<Statement, Error> {
        let positions = self.positions(wanted)?;
        let text = format!(
            "select head.position, (select wanted.position from ({positions}) as wanted limit 1)
            from ({HEAD}) as head"
        );
        Ok((text, self.arguments))
    }

    fn give<T>(&mut self, value: T) -> Result<String, Error>
    where
        T: for<'q> Encode<'q, Postgres> + Type<Postgres>,
    {
        self.arguments.add(value).map_err(Error::Encode)?;
        self.given += 1;
        Ok(format!("${}", self.given))
    }

    /// Positions of events that are one of `wanted`, in order, each once.
    fn positions(&mut self, wanted: &[Wanted<'_>]) -> Result<String, Error> {
        let mut parts = wanted
            .iter()
            .map(|wanted| self.of_one(wanted))
            .collect::<Result<Vec<_>, _>>()?;
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let order = self.order;
        let limit = self.limit;
        let all: Vec<String> = parts.into_iter().map(|part| format!("({part})")).collect();
        let all = all.join(" union ");
        Ok(format!(
            "select either.position from ({all}) as either order by either.position{order} limit \
             {limit}"
        ))
    }

    fn of_one(&mut self, wanted: &Wanted<'_>) -> Result<String, Error> {
        let order = self.order;
        let limit = self.limit;
        if !wanted.tags.is_empty() {
            return self.of_tags(wanted);
        }
        if wanted.streams.is_empty() && !(wanted.types.is_empty() && wanted.categories.is_empty()) {
            return self.of_kinds(wanted);
        }
        let mut conditions = range("event");
        conditions.push_str(" and event.kind > 0");
        if !wanted.streams.is_empty() {
            let names: Vec<String> = wanted
                .streams
                .iter()
                .map(|stream| stream.as_str().to_owned())
                .collect();
            let names = self.give(names)?;
            let _ = write!(
                conditions,
                " and event.stream = any (array(select stream.key from annals.stream where \
                 stream.name = any ({names})))"
            );
        }
        self.also(&mut conditions, wanted)?;
        Ok(format!(
            "select event.position from annals.event where {conditions} order by \
             event.position{order} limit {limit}"
        ))
    }

    /// From the index of tags; more than one are joined there.
    fn of_tags(&mut self, wanted: &Wanted<'_>) -> Result<String, Error> {
        let order = self.order;
        let limit = self.limit;
        let mut joins = String::new();
        let mut conditions = range("tag0");
        for (index, tag) in wanted.tags.iter().enumerate() {
            let hash = self.give(hash(tag))?;
            let _ = write!(conditions, " and tag{index}.tag = {hash}");
            if index > 0 {
                let _ = write!(
                    joins,
                    " join annals.event_tag as tag{index} on tag{index}.position = tag0.position"
                );
            }
        }
        let names: Vec<String> = wanted
            .tags
            .iter()
            .map(|tag| tag.as_str().to_owned())
            .collect();
        let names = self.give(names)?;
        // Two tags may have one hash.
        let _ = write!(
            conditions,
            " and event.kind > 0 and pg_catalog.string_to_array(event.tags, E'\\n') \
             operator(pg_catalog.@>) {names}"
        );
        if !wanted.streams.is_empty() {
            let names: Vec<String> = wanted
                .streams
                .iter()
                .map(|stream| stream.as_str().to_owned())
                .collect();
            let names = self.give(names)?;
            let _ = write!(conditions, " and {NAME} = any ({names})");
        }
        self.also(&mut conditions, wanted)?;
        Ok(format!(
            "select tag0.position from annals.event_tag as tag0{joins} join annals.event on \
             event.position = tag0.position
            where {conditions} order by tag0.position{order} limit {limit}"
        ))
    }

    /// From the index of kinds: of each the first ones, and of these the first.
    fn of_kinds(&mut self, wanted: &Wanted<'_>) -> Result<String, Error> {
        let order = self.order;
        let limit = self.limit;
        let kinds = self.kinds(wanted)?;
        let mut conditions = range("event");
        if !wanted.categories.is_empty() {
            self.of_category_without_a_key(&mut conditions, wanted)?;
        }
        self.besides(&mut conditions, wanted)?;
        Ok(format!(
            "select found.position
            from (select kind.key, kind.category from annals.kind where {kinds}) as kind
            cross join lateral (
                select event.position from annals.event
                where event.kind = kind.key and {conditions}
                order by event.position{order} limit {limit}
            ) as found
            order by found.position{order} limit {limit}"
        ))
    }

    fn kinds(&mut self, wanted: &Wanted<'_>) -> Result<String, Error> {
        let mut kinds = "kind.key <> 0".to_owned();
        if !wanted.types.is_empty() {
            let types = self.give(wanted.types.to_vec())?;
            let _ = write!(kinds, " and kind.type = any ({types})");
        }
        if !wanted.categories.is_empty() {
            let names = self.give(wanted.categories.to_vec())?;
            let _ = write!(
                kinds,
                " and (kind.category = 0 or kind.category in (select category.key from \
                 annals.category where category.name = any ({names})))"
            );
        }
        Ok(kinds)
    }

    /// A category without kinds of its own is among the others, whose events are found by the
    /// names of their streams.
    fn of_category_without_a_key(
        &mut self,
        conditions: &mut String,
        wanted: &Wanted<'_>,
    ) -> Result<(), Error> {
        let names = self.give(wanted.categories.to_vec())?;
        let _ = write!(
            conditions,
            " and (kind.category <> 0 or pg_catalog.split_part({NAME}, '-', 1) = any ({names}))"
        );
        Ok(())
    }

    /// What the event must be besides being in the index that is read.
    fn also(&mut self, conditions: &mut String, wanted: &Wanted<'_>) -> Result<(), Error> {
        if !(wanted.types.is_empty() && wanted.categories.is_empty()) {
            let mut kinds = self.kinds(wanted)?;
            if !wanted.categories.is_empty() {
                self.of_category_without_a_key(&mut kinds, wanted)?;
            }
            let _ = write!(
                conditions,
                " and exists (select from annals.kind where kind.key = event.kind and {kinds})"
            );
        }
        self.besides(conditions, wanted)
    }

    fn besides(&mut self, conditions: &mut String, wanted: &Wanted<'_>) -> Result<(), Error> {
        if !wanted.prefixes.is_empty() {
            let prefixes = self.give(wanted.prefixes.to_vec())?;
            let _ = write!(
                conditions,
                " and {NAME} operator(pg_catalog.^@) any ({prefixes})"
            );
        }
        if let Some(micros) = after(wanted.occurred.0) {
            let micros = self.give(micros)?;
            let _ = write!(conditions, " and event.occurred_at > {micros}");
        }
        if let Some(micros) = up_to(wanted.occurred.1) {
            let micros = self.give(micros)?;
            let _ = write!(conditions, " and event.occurred_at <= {micros}");
        }
        Ok(())
    }
}

/// The microsecond after which a span begins; none when it is open there.
pub(crate) fn after(from: Bound<DateTime<Utc>>) -> Option<i64> {
    match from {
        Bound::Included(moment) => Some(before(moment)),
        Bound::Excluded(moment) => Some(moment.timestamp_micros()),
        Bound::Unbounded => None,
    }
}

/// The last microsecond of a span; none when it is open there.
pub(crate) fn up_to(to: Bound<DateTime<Utc>>) -> Option<i64> {
    match to {
        Bound::Included(moment) => Some(moment.timestamp_micros()),
        Bound::Excluded(moment) => Some(before(moment)),
        Bound::Unbounded => None,
    }
}

/// The last microsecond before a moment. There may be no moment before it that a clock can tell.
fn before(moment: DateTime<Utc>) -> i64 {
    let is_whole = moment.timestamp_subsec_nanos().is_multiple_of(1_000);
    moment.timestamp_micros() - i64::from(is_whole)
}

fn range(table: &str) -> String {
    format!("{table}.position > $1 and {table}.position <= least($2, head.position)")
}

/// The number under which a tag is indexed: FNV-1a over its bytes. It must never change.
pub(crate) fn hash(tag: &Tag) -> i64 {
    fnv(tag.as_str().as_bytes()).cast_signed()
}

/// FNV-1a.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_keeps_its_number() {
        // Pinned: a change here would hide events that people have stored.
        let found: Vec<i64> = ["user:ada", "course:c1"]
            .iter()
            .map(|tag| hash(&tag.parse().unwrap()))
            .collect();
        assert_eq!(found, [-4667807143863841916, -7572660866679228790]);
    }
}
