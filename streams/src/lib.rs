//! Event-time operators as pure values: windows, joins, patterns and what belongs to them.
//!
//! Nothing here knows a store, a clock or a runtime. Records go in with their event time, their
//! place in the log and the watermark at which they came; results come out, in one order. What an
//! operator knows can be written and read back in canonical bytes. So the outcome is a function
//! of the log: a rebuild gives what the live run gave, whatever the pages were.
//!
//! The rules, in short:
//!
//! - A **watermark** `w` says that nothing with a time at or before `w` is expected.
//! - Whatever is open has a `last`, the largest time it can still take. It is **closed** when
//!   `w >= last` and **late** for an item when `w >= last + lateness`; see [`due`].
//! - Everything that closes is emitted before anything expires, however far the watermark jumps.
//! - Lateness is per window, and per pair in joins; what no window took goes to the late side
//!   output.
//! - Results of one cause are ordered by last moment, start and key.
//!
//! ```
//! use annals_streams::{
//!     Aligned, AlignedWindows, Input, Operator, OutOfOrder, Output, Place, Span, Strategy, Sum,
//!     Time, WindowOptions,
//! };
//!
//! let minutes = Aligned::tumbling(Span::from_micros(60))?;
//! let mut revenue = AlignedWindows::<String, i64, Sum>::new(minutes, WindowOptions::on_close());
//! let mut clock = OutOfOrder::by(Span::from_micros(5));
//! let mut out = Output::new();
//! for (position, time, cents) in [(1, 10, 250), (2, 61, 300), (3, 58, 100), (4, 70, 50)] {
//!     let time = Time::from_micros(time);
//!     clock.observe(time, time);
//!     let item = ("tea".to_string(), cents);
//!     let watermark = clock.watermark();
//!     let place = Place::at(position);
//!     revenue.process(Input { watermark, time, place, item: &item }, &mut out);
//! }
//! assert_eq!(out.rows[0].item.value, Some(Sum(350)));
//! # Ok::<(), annals_streams::ConfigError>(())
//! ```

mod batch;
mod clock;
mod distinct;
pub mod due;
mod emit;
mod error;
mod fold;
mod group;
mod hash;
mod join;
mod lane;
mod operator;
mod order;
mod pattern;
mod plan;
mod scan;
mod soon;
mod state;
mod suppress;
mod time;
mod top;
mod window;

pub use batch::{
    Batch, Branch, Each, ItemAt, Joint, JointEnd, Page, Panic, Saved, Sink, SkipItems, Stage,
    Stateful,
};
pub use clock::{MinOfInputs, Observed, OutOfOrder, Strategy};
pub use distinct::DistinctBy;
pub use emit::{Emission, Emit, Kind, Late, WindowOptions};
pub use error::{ConfigError, StateError};
pub use fold::{Collect, Count, Distinct, Fold, Largest, Max, Mean, Min, Sum, TakeBack};
pub use group::GroupBy;
pub use join::{
    JoinType, Side,
    as_of::{AsOfJoin, AsOfOptions, Versions},
    foreign_key::ForeignKeyJoin,
    interval::{IntervalJoin, Within},
    table::{Change, Newer, TableJoin},
    window::WindowJoin,
};
pub use operator::{Input, Kept, Key, Omitted, Operator, Output, Place, Row};
pub use order::InTimeOrder;
pub use pattern::{Detect, Match, Pattern, Skip};
pub use plan::{Plan, PlannedStage};
pub use scan::Scan;
pub use soon::AsSoonAs;
pub use state::{Address, Changes, Codec, State};
pub use suppress::{AtMostEvery, UntilClosed};
pub use time::{Span, Time, Window};
pub use top::TopOfWindow;
pub use window::{aligned::AlignedWindows, assign::Aligned, sessions::Sessions, sliding::Sliding};
