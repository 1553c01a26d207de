//! Whatever follows a log: the one loop that holds a lease and works under it, quota and
//! rebalancing, checkpoints, back-off, dead letters, generations and their supervisor, status, and
//! the program that runs it all.
//!
//! Programs use it through the facade, the crate `annals`; crates that follow a log implement
//! [`Work`], [`Subject`] and [`Follower`].

mod batch_limit;
mod busy;
mod checkpoint;
mod claim;
mod context;
mod dead_letters;
mod error;
mod generation;
mod key;
mod kind;
mod lease;
mod live;
mod location;
mod log;
mod metrics;
mod nothing_to_drain;
mod owner;
mod pages;
mod poll;
mod program;
mod progress;
mod quota;
mod rate;
mod read_your_writes;
mod rebalance;
mod registry;
mod removed;
mod skips;
mod status;
mod subject;
mod supervisor;
mod tasks;
mod worker;

pub use annals_core::{Backoff, contained, contained_async};
pub use batch_limit::BatchLimit;
pub use busy::Activity;
pub use checkpoint::{Note, Restoring, WindowNote, another_log, event_at, same_log, settled_to};
pub use claim::SlotClaim;
pub use context::{Timing, WorkerContext};
pub use dead_letters::{DeadLetterKey, DeadLetterPages, DeadLetters, Drain, Settled, queue};
pub use error::{ViewError, WorkError, chain};
pub use generation::{GenerationWorkers, PublishedStep, RunningGeneration, is_ours, serving};
pub use key::{NODES, slot_of};
pub use kind::Kind;
pub use lease::{Coordination, HeldLease};
pub use live::begin_live;
pub use location::{BoxFuture, ViewLocation};
pub use log::records_at;
pub use nothing_to_drain::NothingToDrain;
pub use pages::{Pages, SharedPage};
pub use poll::{Poll, Seen, Waiting};
pub use program::{Follower, Part, Program, RunningPart, Setup, StartError, With};
pub use progress::{CommittedStep, LastError, Progress, SlotProgress, SlotState};
pub use quota::Quota;
pub use read_your_writes::CatchUp;
pub use registry::{FoldRow, KeysOf, ReactorKind, Registry, ViewKind};
pub use removed::not_read_before_removal;
pub use skips::{Skips, skip_call};
pub use status::{Busy, Calls, CommitTimes, EventTime, HotKey, SlotStatus, Status, TimeShares};
pub use subject::{Subject, Verified};
pub use supervisor::{Supervisor, find_or_begin};
pub use tasks::{DrainResult, Task, Tasks};
pub use worker::{Slot, Work, run};
