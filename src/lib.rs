//! Event sourcing and CQRS: aggregates decide, an append-only log keeps what happened, and read
//! models can be asked about the past.
//!
//! Start with the [`prelude`] and [`Annals::open`](Open::open).

mod open;

pub use annals_core::*;
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
/// What follows a log: for crates that add parts to programs.
#[cfg(feature = "projections")]
pub use annals_runner as runner;
/// The embedded store, for programs that set its options.
#[cfg(feature = "sqlite")]
pub use annals_sqlite as sqlite;

pub use open::Open;

/// What a program with events needs in scope: `use annals::prelude::*;`.
///
/// `Serialize` and `Deserialize` are serde's; their derives name the crate `serde`, which a program
/// depends on itself. With the feature `testing`, on by default, tests can also say
/// `Account::given([..])`: see `annals::testing`.
pub mod prelude {
    pub use serde::{Deserialize, Serialize};

    #[cfg(all(feature = "macros", feature = "projections"))]
    pub use crate::View;
    #[cfg(feature = "projections")]
    pub use crate::projections::{
        Listens, On, Poison, Process, ProcessSetup, Program, Project, ReactError, Reactor,
        ReactorSetup, ReadModels as _, Request, Row, SqlProjection, SqlProjectionSetup, Step,
        Tables, View, ViewSetup, With as _,
    };
    #[cfg(feature = "testing")]
    pub use crate::testing::Given as _;
    pub use crate::{
        Aggregate, AggregateRef, Annals, At, CommandError, Committed, Decoded, Emit, Event, Fold,
        Handle, IntoEvents, Moment, Open, Position, Query, Recorded, StreamId, Tag, Token, Version,
    };
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
    #[doc = include_str!("../docs/guide/testing.md")]
    struct Testing;
    #[doc = include_str!("../docs/guide/stores.md")]
    struct Stores;
}
