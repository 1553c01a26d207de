//! Read models: kept up to date exactly once, rebuilt while the old one serves, and asked about the
//! past. And side effects: reactors that follow the log, and processes that decide over a long
//! time.

mod catch_up;
mod dead_letters;
mod inline;
mod key;
mod lifecycle;
mod location;
mod log;
mod meter;
mod options;
mod owner;
mod process;
mod program;
mod query;
mod rate;
mod reactor;
mod rebuild;
mod registry;
mod replay;
mod rows;
mod skips;
mod sql;
mod status;
mod step;
mod supervisor;
mod verify;
mod view;
mod worker;

/// How much of the past a view keeps.
pub use annals_core::History;
pub use dead_letters::{DeadLetterKey, DeadLetters, Settled};
pub use key::ViewKey;
pub use options::Options;
pub use process::{Listens, On, Process, ProcessHandle, ProcessSetup, Step};
pub use program::{Part, Program, Setup, StartError, ViewSetup, With};
pub use query::{
    Change, Changed, ChangedBetween, Get, HistoryOf, Many, RowDiff, RowEntry, RowHistory,
    RowsFound, RowsOf, Update, VersionOf, ViewError, ViewHandle, Watch, WatchAll,
};
pub use reactor::{ReactError, Reactor, ReactorHandle, ReactorSetup, Request};
pub use rebuild::{BuildProgress, Building, Rebuild, RebuildError};
pub use registry::{ReactorKind, Registry, ViewKind};
pub use sql::{ConnectionOf, SqlProjection, SqlProjectionHandle, SqlProjectionSetup, Tables};
pub use status::{Busy, Calls, CommitTimes, Kind, QuotaStatus, SlotStatus, Status};
pub use step::Handlers;
pub use view::{Poison, Project, Row, View};
pub use worker::{Activity, LastError, SlotState};
