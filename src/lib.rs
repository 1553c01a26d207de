//! Event sourcing and CQRS: aggregates decide, an append-only log keeps what happened, and read models can be asked about the past.
//!
//! Start with the [`prelude`].

#[cfg(feature = "testing")]
pub use annals_core::testing;
pub use annals_core::{
    Aggregate, AggregateRef, Annals, Append, AppendError, AppendStreams, Appended, At, AtomicStreams, Boundary, Clock,
    Codec, CodecError, CommandError, Condition, CountedIds, Decide, DecodeError, Decoded, Deletion, Digest, Direction,
    Done, Emit, EmitError, Emits, EncodeError, Encoded, Event, EventId, EventStore, Events, Expected, Failure, Filter,
    Fold, FoldId, Found, Guards, Handle, Head, Hint, History, HistoryEntry, HistoryPage, IdClash, IdSource, Instant,
    IntoDecision, IntoEvents, Invalid, Json, Known, Limits, Load, LoadError, Loaded, Log, LogId, LogPage, ManualClock,
    MemoryStore, Metadata, Moment, NewEvent, Over, PAGE_BYTES_MAX, PAGE_EVENTS, Pages, Part, Partition, Place, Placed,
    Position, Query, QueryItem, RandomIds, ReadLog, ReadQuery, ReadStream, Recognised, Recorded, RecordedEvent,
    ReplayError, Retries, Run, Shape, Shown, Snapshot, SnapshotStore, Snapshots, Status, Store, StoreError, Stored,
    StreamChange, StreamId, StreamPage, StreamState, SystemClock, Tag, TaggedStore, Token, TypedPages, Undecodable,
    Version, Violation, chrono, derive, recognise, to_microseconds, with_metadata,
};
#[cfg(feature = "macros")]
pub use annals_macros::Event;

/// What a program with events needs in scope: `use annals::prelude::*;`.
///
/// `Serialize` and `Deserialize` are serde's; their derives name the crate `serde`, which a program depends on itself.
pub mod prelude {
    pub use serde::{Deserialize, Serialize};

    #[cfg(feature = "testing")]
    pub use crate::testing::Given as _;
    pub use crate::{
        Aggregate, AggregateRef, Annals, At, CommandError, Decoded, Done, Emit, Event, Fold, Handle, IntoEvents,
        Moment, Position, Query, Recorded, StreamId, Tag, Token, Version,
    };
}
