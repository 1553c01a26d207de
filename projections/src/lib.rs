//! Read models: kept up to date exactly once, rebuilt while the old one serves, and asked about the
//! past. And side effects: reactors that follow the log, and process managers that decide over a
//! long time.

mod begin;
mod context;
mod fold;
mod inline;
mod key;
mod keyed;
mod lifecycle;
mod options;
mod part;
#[cfg(feature = "streams")]
pub mod pipeline;
mod process;
mod query;
mod reactor;
mod read_models;
mod rebuild;
mod registry;
mod removed;
mod replay;
mod samples;
mod sql;
mod subject;
mod verify;
mod view;
mod worker;

/// How much of the past a view keeps, and an event as it is folded.
pub use annals_core::{History, Recorded};
pub use annals_runner::{
    Activity, Busy, Calls, CommitTimes, DeadLetterKey, DeadLetters, Kind, LastError, Part, Program,
    ReactorKind, Registry, Settled, Setup, SlotState, SlotStatus, StartError, Status, TimeShares,
    ViewError, ViewKind, With,
};
pub use key::ViewKey;
pub use options::Options;
pub use process::{Listens, On, Process, ProcessHandle, ProcessSetup, Step};
pub use query::{
    Change, Changed, ChangedBetween, Get, HistoryOf, Many, RowDiff, RowEntry, RowHistory,
    RowsFound, RowsOf, Update, VersionOf, ViewHandle, Watch, WatchAll,
};
pub use reactor::{ReactError, Reactor, ReactorHandle, ReactorSetup, Request};
pub use read_models::ReadModels;
pub use rebuild::{BuildProgress, Building, Rebuild, RebuildError};
pub use registry::Register;
pub use samples::rows_of_samples;
pub use sql::{ConnectionOf, SqlProjection, SqlProjectionHandle, SqlProjectionSetup, Tables};
pub use view::{Handlers, IndexType, Poison, Project, Row, View, ViewSetup};
