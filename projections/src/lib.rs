//! Read models: kept up to date exactly once, rebuilt while the old one serves, and asked about the past. And side effects: reactors
//! that follow the log, and processes that decide over a long time.

mod inline;
mod key;
mod left_out;
mod lifecycle;
mod log;
mod meter;
mod options;
mod owner;
mod place;
mod process;
mod program;
mod query;
mod rate;
mod reach;
mod reactor;
mod rebuild;
mod registry;
mod replay;
mod rows;
mod set_aside;
mod sql;
mod status;
mod step;
mod supervisor;
mod verify;
mod view;
mod worker;

/// How much of the past a view keeps.
pub use annals_core::Keeps;
pub use key::ViewKey;
pub use options::Options;
pub use process::{Listens, On, Process, ProcessManager, Processes, Step};
pub use program::{Part, Program, Projection, Setup, StartError, With};
pub use query::{
    Change, Changed, ChangedBetween, Get, HistoryOf, Many, RowDiff, RowEntry, RowHistory,
    RowsFound, RowsOf, Update, VersionOf, ViewError, Views, Watch, WatchAll,
};
pub use reactor::{ReactError, Reaction, Reactions, Reactor, Request};
pub use rebuild::{BuildProgress, Building, Rebuild, RebuildError};
pub use registry::{ReactorKind, Registry, ViewKind};
pub use set_aside::{ParkedKey, SetAside, Settled};
pub use sql::{ConnectionOf, SqlProject, SqlProjection, SqlTables, Tables};
pub use status::{Busy, Calls, CommitTimes, Kind, Shares, SlotStatus, Status};
pub use step::Handlers;
pub use view::{Poison, Project, Row, View};
pub use worker::{Activity, LastError, SlotState};
