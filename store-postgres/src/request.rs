//! An append as the writer gets it: checked, and with everything computed that does not need the
//! database.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use annals_core::{
    Append, AppendError, Clock, Condition, Expected, Invalid, Limits, NewEvent, Position, StreamId,
    StreamState, to_microseconds,
};
use hashlink::DefaultHashBuilder;
use serde::Serialize;
use uuid::Uuid;

use crate::query_plan::hash;
use crate::stream_cache::BATCH_STREAMS_MAX;
use crate::views::inline::Carried;

/// What is to be appended, and under which condition.
#[derive(Debug)]
pub(crate) struct Request {
    /// The caller may keep it, too.
    pub(crate) append: Arc<Append>,
    pub(crate) condition: Option<Conditional>,
    /// The streams that it says something of, each once: those with expectations first, in the
    /// order of the request; after them those that get events without one, in the order of their
    /// first events.
    pub(crate) streams: Vec<Touched>,
    /// The kinds of its events, each once.
    pub(crate) kinds: Vec<KindName>,
    pub(crate) events: Vec<Encoded>,
    /// Of its inline rows, those whose generations are there.
    pub(crate) rows: Vec<Carried>,
    pub(crate) bytes: usize,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A stream that an append says something of.
#[derive(Debug)]
pub(crate) struct Touched {
    pub(crate) stream: StreamId,
    pub(crate) expected: Expected,
    pub(crate) is_written: bool,
}

/// What an event is, without its content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KindName {
    pub(crate) event_type: Cow<'static, str>,
    pub(crate) schema_version: u32,
    pub(crate) codec: Cow<'static, str>,
    pub(crate) category: String,
}

/// A condition, also in the words of the function that appends.
#[derive(Debug)]
pub(crate) struct Conditional {
    pub(crate) condition: Condition,
    pub(crate) items: String,
}

/// The columns of an event that are computed beforehand.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// The place of its stream among those of the request.
    pub(crate) stream: usize,
    /// The place of its kind among those of the request.
    pub(crate) kind: usize,
    pub(crate) digest: Uuid,
    /// One a line: no tag holds a control character.
    pub(crate) tags: Option<String>,
    pub(crate) hashes: Vec<i64>,
    pub(crate) metadata: Option<Vec<u8>>,
    pub(crate) occurred_at: i64,
}

impl Request {
    /// Checks the append and encodes it; runs in the caller's task, not in the writer's.
    pub(crate) fn new(
        append: Arc<Append>,
        limits: &Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Request, AppendError> {
        append.check(limits)?;
        let condition = append.condition.clone().map(Conditional::new);
        let mut kinds: Vec<KindName> = Vec::new();
        let (streams, stream_of) = Touched::all(&append);
        if streams.len() > BATCH_STREAMS_MAX {
            let what = format!(
                "the append is about {} streams, at most {BATCH_STREAMS_MAX} are allowed",
                streams.len()
            );
            return Err(Invalid::new(what).into());
        }
        let encode = |((to, event), place)| Encoded::of(to, event, place, &mut kinds);
        let events = append
            .events
            .iter()
            .map(|(to, event)| (to, event))
            .zip(stream_of)
            .map(encode)
            .collect();
        let bytes = append.size_bytes();
        Ok(Request {
            append,
            condition,
            streams,
            kinds,
            events,
            rows: Vec::new(),
            bytes,
            clock,
        })
    }
}

impl Touched {
    /// Every stream of the append, in the order in which violations are counted; and of each event
    /// the place of its stream among them.
    fn all(append: &Append) -> (Vec<Touched>, Vec<usize>) {
        let mut found: HashMap<&StreamId, usize, DefaultHashBuilder> = HashMap::default();
        let mut all: Vec<Touched> = Vec::with_capacity(append.expectations.len().max(1));
        for (stream, expected) in &append.expectations {
            found.insert(stream, all.len());
            all.push(Touched {
                stream: stream.clone(),
                expected: *expected,
                is_written: false,
            });
        }
        let mut of_events = Vec::with_capacity(append.events.len());
        for (stream, _) in &append.events {
            let place = *found.entry(stream).or_insert_with(|| {
                all.push(Touched {
                    stream: stream.clone(),
                    expected: Expected::Any,
                    is_written: true,
                });
                all.len() - 1
            });
            all[place].is_written = true;
            of_events.push(place);
        }
        (all, of_events)
    }

    /// Whether a stream in `state` is as it must be.
    pub(crate) fn holds(&self, state: &StreamState) -> bool {
        if self.is_written {
            self.expected.allows_writing(state)
        } else {
            self.expected.passes_check(state)
        }
    }

    /// Whether it must still be at the version at which this was checked. Whether a stream is
    /// active does not change without a trace among the changes of streams, so who relies on no
    /// more relies on no version.
    pub(crate) fn relies_on_version(&self) -> bool {
        !matches!(self.expected, Expected::Any | Expected::Exists)
    }

    /// Whether an absent stream may be all right, so that it needs a key.
    pub(crate) fn may_be_absent(&self) -> bool {
        self.holds(&StreamState::absent())
    }
}

impl Conditional {
    fn new(condition: Condition) -> Conditional {
        let items: Vec<Item<'_>> = condition
            .query
            .items()
            .iter()
            .map(|item| Item {
                types: &item.types,
                streams: &item.streams,
                tags: item.tags.iter().map(|tag| tag.as_str()).collect(),
            })
            .collect();
        let items = serde_json::to_string(&items).expect("lists of texts are JSON");
        Conditional { condition, items }
    }

    /// The position after which nothing may match.
    pub(crate) fn after(&self) -> Position {
        self.condition.after.unwrap_or(Position::START)
    }
}

/// An item of a query, as the function `first_match` reads it.
#[derive(Serialize)]
struct Item<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    types: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    streams: &'a [StreamId],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<&'a str>,
}

impl Encoded {
    fn of(to: &StreamId, event: &NewEvent, stream: usize, kinds: &mut Vec<KindName>) -> Encoded {
        let is_of = |kind: &KindName| {
            kind.event_type == event.event_type
                && kind.schema_version == event.schema_version
                && kind.codec == event.codec
                && kind.category == to.category()
        };
        let kind = kinds.iter().rposition(is_of).unwrap_or_else(|| {
            kinds.push(KindName {
                event_type: event.event_type.clone(),
                schema_version: event.schema_version,
                codec: event.codec.clone(),
                category: to.category().to_owned(),
            });
            kinds.len() - 1
        });
        let tags = event.sorted_tags();
        let mut hashes: Vec<i64> = tags.iter().map(hash).collect();
        // Two tags may have one hash.
        hashes.sort_unstable();
        hashes.dedup();
        let names: Vec<&str> = tags.iter().map(|tag| tag.as_str()).collect();
        let says_something = event.metadata != annals_core::Metadata::default();
        Encoded {
            stream,
            kind,
            digest: Uuid::from_bytes(event.digest().0),
            tags: (!names.is_empty()).then(|| names.join("\n")),
            hashes,
            metadata: says_something.then(|| {
                serde_json::to_vec(&event.metadata).expect("ids, texts and a map of texts are JSON")
            }),
            occurred_at: to_microseconds(event.occurred_at).timestamp_micros(),
        }
    }
}
