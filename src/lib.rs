//! Event sourcing and CQRS: aggregates decide, an append-only log keeps what happened, and read
//! models can be asked about the past.
//!
//! Start with the [`prelude`] and [`Annals::open`](Open::open).

mod open;

#[doc(hidden)]
pub use annals_core::derive;
pub use annals_core::{
    Aggregate, AggregateRef, Annals, At, Clock, CommandError, Committed, Each, Emit, Event,
    EventId, Failure, Filter, Fold, Handle, Instant, IntoEvents, Invalid, LoadError, Loaded,
    ManualClock, MemoryStore, Metadata, Moment, Over, Panicked, Partition, Position, Query,
    QueryItem, Recorded, Retries, Snapshots, Store, StoreError, StreamId, SystemClock, Tag, Token,
    Undecodable, Version, with_causes, with_metadata,
};
// What derived code names.
pub use annals_core::chrono;
#[cfg(feature = "testing")]
pub use annals_core::testing;
#[doc(hidden)]
pub use annals_core::{
    Codec, CodecError, DecodeError, Decoded, EncodeError, Encoded, Json, Shape, Stored,
};
#[cfg(feature = "conformance")]
pub use annals_core::{conformance, conformance_of_custom_tables};
/// Change data capture: the changes of another application's tables as events.
#[cfg(feature = "cdc")]
pub mod cdc {
    pub use annals_cdc::*;
    /// Makes a struct a composite type of PostgreSQL.
    ///
    /// ```
    /// use annals::cdc::FromColumn;
    ///
    /// #[derive(annals::cdc::Composite, Debug, PartialEq)]
    /// struct Address {
    ///     street: String,
    ///     number: Option<i32>,
    /// }
    ///
    /// let home = Address { street: "Main St, 1".into(), number: None };
    /// assert_eq!(home.to_column().as_deref(), Some(r#"("Main St, 1",)"#));
    /// assert_eq!(Address::from_column(Some(r#"("Main St, 1",)"#)), Ok(home));
    /// ```
    #[cfg(feature = "macros")]
    pub use annals_macros::Composite;
    /// Makes an enum an enum of PostgreSQL.
    ///
    /// ```
    /// use annals::cdc::FromColumn;
    ///
    /// #[derive(annals::cdc::Label, Debug, PartialEq)]
    /// enum Mood {
    ///     VerySad,
    ///     #[label("OK")]
    ///     Fine,
    /// }
    ///
    /// assert_eq!(Mood::from_column(Some("very_sad")), Ok(Mood::VerySad));
    /// assert_eq!(Mood::Fine.to_column().as_deref(), Some("OK"));
    /// ```
    #[cfg(feature = "macros")]
    pub use annals_macros::Label;
    /// Makes a struct the rows of a table.
    ///
    /// ```
    /// use annals::cdc::{ReceivedRow, TableRow};
    ///
    /// #[derive(TableRow, Clone, Debug, PartialEq)]
    /// #[table("public.orders")]
    /// struct Order {
    ///     #[key]
    ///     id: i64,
    ///     #[column("state")]
    ///     status: Status,
    ///     #[column(default)]
    ///     tags: Vec<String>,
    /// }
    ///
    /// #[derive(annals::cdc::Label, Clone, Debug, PartialEq)]
    /// enum Status { Pending, Shipped }
    ///
    /// let columns = annals::cdc::Columns::default()
    ///     .with("id", Some("42"))
    ///     .with("state", Some("shipped"));
    /// let row = ReceivedRow { columns: &columns, unchanged: &[], schema: 1 };
    /// let order = Order::from_columns(&row)?;
    /// assert_eq!(order, Order { id: 42, status: Status::Shipped, tags: vec![] });
    /// assert_eq!(Order::CATEGORY, "public.orders");
    /// # Ok::<_, annals::cdc::ColumnError>(())
    /// ```
    #[cfg(feature = "macros")]
    pub use annals_macros::TableRow;
}
/// Apache Kafka: topics as logs that read models follow, and logs as topics.
#[cfg(feature = "kafka")]
pub use annals_kafka as kafka;
#[cfg(feature = "macros")]
pub use annals_macros::Event;
#[cfg(all(feature = "macros", feature = "projections"))]
pub use annals_macros::View;
/// The store on a PostgreSQL server, for programs that set its options.
#[cfg(feature = "postgres")]
pub use annals_postgres as postgres;
/// Read models.
#[cfg(feature = "projections")]
pub use annals_projections as projections;
/// Pipelines in event time: windows over the log, as rows of views.
#[cfg(feature = "streams")]
pub use annals_projections::pipeline;
/// What follows a log: for crates that add parts to programs.
#[cfg(feature = "projections")]
pub use annals_runner as runner;
/// The embedded store, for programs that set its options.
#[cfg(feature = "sqlite")]
pub use annals_sqlite as sqlite;
/// The operators of pipelines as pure values, for programs that run them over streams of their own.
#[cfg(feature = "streams")]
pub use annals_streams as streams;

pub use open::Open;

/// What a store is made of: for people who write a backend, and who read or write logs as bytes.
pub mod store {
    pub use annals_core::{
        Append, AppendError, Appended, Assignment, ChangeStream, Condition, CountedIds, Deletion,
        Digest, Direction, Duplicate, EventStore, Events, Expected, FoldId, Found, Head, Hint,
        IdClash, IdSource, Incarnation, Limits, Log, LogId, LogPage, NewEvent, Outgoing, Outlet,
        OutletError, OutletMark, PAGE_BYTES_MAX, PAGE_EVENTS, Pages, Place, Placed, RandomIds,
        ReadLog, ReadQuery, ReadStream, RecordedEvent, ReplayError, Shown, Snapshot, SnapshotStore,
        Status, StoredId, StreamChange, StreamPage, StreamState, TaggedStore, TypedPages,
        Violation, deduplicate, to_microseconds,
    };
}

/// Where read models live, as a backend sees it.
pub mod read_model {
    pub use annals_core::{
        Acquired, Checkpoint, CommitError, CustomTables, DeadLetter, DeadLetterStore, Generation,
        GenerationId, GenerationSpec, GenerationStore, History, InTransaction, InlineProjector,
        InlineRow, InlineRowVersion, InlineViews, Lease, LeaseState, Leases, PastRow, Phase,
        ReadRows, RowAdvance, RowChange, RowOutcome, RowPlace, RowStore, RowVersion, RowsBy,
        RowsPage, SkipDecision, VIEW_KEY_BYTES_MAX, VIEW_SLOTS_MAX, VersionedRow, ViewCommit,
        ViewRow, ViewStore,
    };
}

/// How events are written and read back: for events by hand and upcasters.
pub mod codec {
    pub use annals_core::{
        Codec, CodecError, DecodeError, Decoded, EncodeError, Encoded, Json, Shape, Stored,
    };
}

/// The types of commands, decisions and questions about the past: for signatures.
pub mod commands {
    pub use annals_core::{
        Boundary, Decide, DecideInTwoLooks, EmitError, Emits, HistoryEntry, HistoryPage,
        IntoDecision, Load, LoadHistory, Part, Run,
    };
}

/// Events and aggregates of a program, their Rust types forgotten: for tools.
pub mod registry {
    pub use annals_core::{AggregateKind, EventKind, JsonText, ShowError, ShownEvent, ShownState};
}

/// How far what follows the log has come, and what holds it.
#[cfg(feature = "projections")]
pub mod status {
    pub use annals_projections::{
        Activity, Busy, Calls, CommitTimes, LastError, SlotState, SlotStatus, Status, TimeShares,
    };
}

/// What a program with events needs in scope: `use annals::prelude::*;`.
///
/// `Serialize` and `Deserialize` are serde's; their derives name the crate `serde`, which a program
/// depends on itself. With the feature `testing`, which tests switch on, they can also say
/// `Account::given([..])`: see `annals::testing`. Reactors, process managers and tables of one's
/// own are in [`projections`].
pub mod prelude {
    pub use serde::{Deserialize, Serialize};

    #[cfg(feature = "streams")]
    pub use crate::pipeline::Pipelines as _;
    #[cfg(feature = "projections")]
    pub use crate::projections::View;
    #[cfg(feature = "projections")]
    pub use crate::projections::{Poison, Program, Project, ReadModels as _, Row, With as _};
    #[cfg(feature = "projections")]
    pub use crate::projections::{ViewHandle, ViewSetup};
    #[cfg(feature = "testing")]
    pub use crate::testing::Given as _;
    pub use crate::{
        Aggregate, AggregateRef, Annals, At, CommandError, Committed, Decoded, Emit, Event, Fold,
        Handle, IntoEvents, Moment, Open, Position, Query, Recorded, StreamId, Tag, Token, Version,
    };
    #[cfg(all(feature = "macros", feature = "projections"))]
    pub use annals_macros::View;
}

/// The README and the guide: their code is compiled and run with the tests.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/guide/events.md")]
    struct Events;
    #[doc = include_str!("../docs/guide/aggregates.md")]
    struct Aggregates;
    #[doc = include_str!("../docs/guide/decisions.md")]
    struct Decisions;
    #[doc = include_str!("../docs/guide/the-past.md")]
    struct ThePast;
    #[cfg(all(feature = "macros", feature = "projections"))]
    #[doc = include_str!("../docs/guide/your-first-view.md")]
    struct YourFirstView;
    #[cfg(all(feature = "macros", feature = "projections"))]
    #[doc = include_str!("../docs/guide/asking-about-the-past.md")]
    struct AskingAboutThePast;
    #[cfg(all(feature = "macros", feature = "projections", feature = "sqlite"))]
    #[doc = include_str!("../docs/guide/rebuilding.md")]
    struct Rebuilding;
    #[cfg(all(feature = "macros", feature = "projections"))]
    #[doc = include_str!("../docs/guide/dead-letters.md")]
    struct DeadLettersPage;
    #[cfg(all(feature = "macros", feature = "projections", feature = "sqlite"))]
    #[doc = include_str!("../docs/guide/custom-tables.md")]
    struct CustomTablesPage;
    #[cfg(all(feature = "macros", feature = "streams", feature = "sqlite"))]
    #[doc = include_str!("../docs/guide/windows.md")]
    struct Windows;
    #[cfg(all(feature = "macros", feature = "streams"))]
    #[doc = include_str!("../docs/guide/kafka-streams-and-flink.md")]
    struct KafkaStreamsAndFlink;
    #[cfg(all(feature = "macros", feature = "streams"))]
    #[doc = include_str!("../docs/guide/joins.md")]
    struct Joins;
    #[cfg(all(feature = "macros", feature = "streams"))]
    #[doc = include_str!("../docs/guide/events-out.md")]
    struct EventsOut;
    #[cfg(all(feature = "macros", feature = "projections"))]
    #[doc = include_str!("../docs/guide/reactors-and-processes.md")]
    struct ReactorsAndProcesses;
    #[cfg(all(
        feature = "kafka",
        feature = "macros",
        feature = "projections",
        feature = "sqlite"
    ))]
    #[doc = include_str!("../docs/guide/kafka.md")]
    struct Kafka;
    #[cfg(all(
        feature = "cdc",
        feature = "macros",
        feature = "projections",
        feature = "sqlite"
    ))]
    #[doc = include_str!("../docs/guide/cdc.md")]
    struct Cdc;
    #[doc = include_str!("../docs/guide/testing.md")]
    struct Testing;
    #[doc = include_str!("../docs/guide/stores.md")]
    struct Stores;
}
