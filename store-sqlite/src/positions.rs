//! Positions in order, straight from the indexes: of a kind, of a tag, of a stream, and what they
//! have in common.
//!
//! Each source can be asked for its next position from another one on, so an intersection skips
//! everything that one of its sources does not have, and a union reads no further than it is asked.

use std::ops::RangeInclusive;

use annals_core::Direction;
use rusqlite::{Connection, OptionalExtension};

use crate::statements as sql;

/// What a cursor first fetches, and what it fetches at most at once.
const CHUNK_MIN: usize = 4;
const CHUNK_MAX: usize = 512;

/// One index range that gives positions in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Every event that is not archived.
    Every,
    Kind(i64),
    Tag(i64),
    /// The versions that a stream still holds, both ends included.
    Stream {
        key: i64,
        versions: RangeInclusive<u64>,
    },
}

/// Which positions are wanted.
#[derive(Debug)]
pub(crate) enum Node {
    Source(Box<Cursor>),
    Any(Vec<Node>),
    All(Vec<Node>),
}

/// The range that is walked through, and how much of it may be examined.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) direction: Direction,
    /// The lowest and the highest position wanted.
    pub(crate) range: RangeInclusive<u64>,
    /// Steps of intersections that are left; when none is, the walk pauses at a position.
    pub(crate) steps_left: usize,
    pub(crate) paused_at: Option<u64>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(
        connection: &'a Connection,
        direction: Direction,
        range: RangeInclusive<u64>,
    ) -> Walk<'a> {
        Walk {
            connection,
            direction,
            range,
            steps_left: usize::MAX,
            paused_at: None,
        }
    }

    /// Where the walk begins.
    pub(crate) fn first(&self) -> u64 {
        match self.direction {
            Direction::Forward => *self.range.start(),
            Direction::Backward => *self.range.end(),
        }
    }

    /// The position after `position` in the direction of the walk; none at its end.
    pub(crate) fn after(&self, position: u64) -> Option<u64> {
        let next = match self.direction {
            Direction::Forward => position.checked_add(1),
            Direction::Backward => position.checked_sub(1),
        };
        next.filter(|next| self.range.contains(next))
    }

    /// Whether `position` is at `from` or further along.
    fn reaches(&self, position: u64, from: u64) -> bool {
        match self.direction {
            Direction::Forward => position >= from,
            Direction::Backward => position <= from,
        }
    }
}

impl Node {
    pub(crate) fn source(source: Source) -> Node {
        Node::Source(Box::new(Cursor {
            source,
            ahead: Vec::new(),
            at: 0,
            chunk: CHUNK_MIN,
            done: false,
        }))
    }

    /// The first position at `from` or further along. Calls never go back.
    pub(crate) fn seek(
        &mut self,
        walk: &mut Walk<'_>,
        from: u64,
    ) -> Result<Option<u64>, rusqlite::Error> {
        match self {
            Node::Source(cursor) => cursor.seek(walk, from),
            Node::Any(nodes) => {
                let mut nearest: Option<u64> = None;
                for node in nodes {
                    if let Some(found) = node.seek(walk, from)?
                        && nearest.is_none_or(|nearest| walk.reaches(nearest, found))
                    {
                        nearest = Some(found);
                    }
                }
                // Where one of them paused, the others must not run ahead.
                Ok(nearest.filter(|nearest| {
                    walk.paused_at
                        .is_none_or(|paused| walk.reaches(paused, *nearest))
                }))
            }
            Node::All(nodes) => all(nodes, walk, from),
        }
    }
}

/// The first position that all of them have.
fn all(nodes: &mut [Node], walk: &mut Walk<'_>, from: u64) -> Result<Option<u64>, rusqlite::Error> {
    let mut wanted = from;
    'again: loop {
        for node in &mut *nodes {
            let Some(found) = node.seek(walk, wanted)? else {
                return Ok(None);
            };
            if found != wanted {
                wanted = found;
                walk.steps_left = walk.steps_left.saturating_sub(1);
                if walk.steps_left == 0 {
                    let paused = walk
                        .paused_at
                        .filter(|paused| walk.reaches(wanted, *paused))
                        .unwrap_or(wanted);
                    walk.paused_at = Some(paused);
                    return Ok(None);
                }
                continue 'again;
            }
        }
        return Ok(Some(wanted));
    }
}

/// A source, with some positions read ahead.
#[derive(Debug)]
pub(crate) struct Cursor {
    source: Source,
    ahead: Vec<u64>,
    at: usize,
    chunk: usize,
    /// The source has no further position.
    done: bool,
}

impl Cursor {
    fn seek(&mut self, walk: &Walk<'_>, from: u64) -> Result<Option<u64>, rusqlite::Error> {
        loop {
            match self.ahead.get(self.at) {
                Some(position) if walk.reaches(*position, from) => return Ok(Some(*position)),
                Some(_) => {
                    self.at += self.ahead[self.at..]
                        .partition_point(|position| !walk.reaches(*position, from));
                    continue;
                }
                None => {}
            }
            if self.done || !walk.range.contains(&from) {
                return Ok(None);
            }
            self.fill(walk, from)?;
        }
    }

    fn fill(&mut self, walk: &Walk<'_>, from: u64) -> Result<(), rusqlite::Error> {
        let (low, high) = match walk.direction {
            Direction::Forward => (from, *walk.range.end()),
            Direction::Backward => (*walk.range.start(), from),
        };
        let low = low.cast_signed();
        let high = high.cast_signed();
        let limit = self.chunk as i64;
        let forward = walk.direction == Direction::Forward;
        self.ahead.clear();
        self.at = 0;
        match &self.source {
            Source::Every => {
                let statement = if forward {
                    sql::EVERY_FORWARD
                } else {
                    sql::EVERY_BACKWARD
                };
                collect(walk, statement, (low, high, limit), &mut self.ahead)?;
            }
            Source::Kind(key) => {
                let statement = if forward {
                    sql::KIND_FORWARD
                } else {
                    sql::KIND_BACKWARD
                };
                collect(walk, statement, (*key, low, high, limit), &mut self.ahead)?;
            }
            Source::Tag(key) => {
                let statement = if forward {
                    sql::TAG_FORWARD
                } else {
                    sql::TAG_BACKWARD
                };
                collect(walk, statement, (*key, low, high, limit), &mut self.ahead)?;
            }
            Source::Stream { key, versions } => {
                let statement = if forward {
                    sql::VERSION_FORWARD
                } else {
                    sql::VERSION_BACKWARD
                };
                let versions = versions_at(walk, *key, versions.clone(), from)?;
                let first = versions.start().cast_signed();
                let last = versions.end().cast_signed();
                collect(walk, statement, (*key, first, last, limit), &mut self.ahead)?;
            }
        }
        self.done = self.ahead.len() < self.chunk;
        // A stream's versions do not end where the range does.
        self.ahead.retain(|position| walk.range.contains(position));
        self.chunk = (self.chunk * 2).min(CHUNK_MAX);
        Ok(())
    }
}

fn collect(
    walk: &Walk<'_>,
    statement: &str,
    parameters: impl rusqlite::Params,
    into: &mut Vec<u64>,
) -> Result<(), rusqlite::Error> {
    let mut statement = walk.connection.prepare_cached(statement)?;
    let mut rows = statement.query(parameters)?;
    while let Some(row) = rows.next()? {
        into.push(crate::streams::number(row, 0)?);
    }
    Ok(())
}

/// The versions of a stream whose positions are at `from` or further along. Positions ascend with
/// versions, so a binary search finds the border.
fn versions_at(
    walk: &Walk<'_>,
    stream: i64,
    versions: RangeInclusive<u64>,
    from: u64,
) -> Result<RangeInclusive<u64>, rusqlite::Error> {
    let mut statement = walk.connection.prepare_cached(sql::VERSION_FORWARD)?;
    let (first, last) = versions.into_inner();
    let mut low = first;
    let mut high = last + 1;
    // The first version in low..high whose position is at or after `from`.
    while low < high {
        let middle = low + (high - low) / 2;
        let version = middle.cast_signed();
        let position: Option<i64> = statement
            .query_row((stream, version, version, 1), |row| row.get(0))
            .optional()?;
        let Some(position) = position else { break };
        if position.cast_unsigned() >= from {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    match walk.direction {
        Direction::Forward => Ok(low..=last),
        // `low` may be the version at `from`; one too many is dropped by the caller.
        Direction::Backward => Ok(first..=low.min(last)),
    }
}
