//! Pipelines in event time: windows over the log, as rows of views.
//!
//! A pipeline is a function from the log to rows. It runs where views run: in generations and
//! slots, under leases, rows and state in one commit. So a rebuild gives the same rows byte for
//! byte, and a killed process loses nothing.
//!
//! ```
//! use std::time::Duration;
//!
//! use annals_projections::pipeline::{Fold, Pipeline, Window};
//! # use annals_macros::{Event, View};
//! use serde::{Deserialize, Serialize};
//!
//! # #[derive(Clone, Event, Serialize, Deserialize)]
//! # #[event(category = "order", crate = "annals_core")]
//! # enum OrderEvent { Placed { product: String, cents: i64 } }
//! #[derive(Clone, Default, Serialize, Deserialize, View)]
//! #[view(name = "sales", key = (Window, String), history)]
//! # #[view(crate = "annals_projections")]
//! struct Sales {
//!     orders: u64,
//!     cents: i64,
//! }
//!
//! impl Fold<(String, i64)> for Sales {
//!     fn add(&mut self, (_, cents): &(String, i64)) {
//!         self.orders += 1;
//!         self.cents += cents;
//!     }
//!
//!     fn merge(&mut self, other: Sales) {
//!         self.orders += other.orders;
//!         self.cents += other.cents;
//!     }
//! }
//!
//! fn sales() -> Pipeline {
//!     Pipeline::new("sales", 1, |log| {
//!         log.events::<OrderEvent>()
//!             .out_of_order_by(Duration::from_secs(3))
//!             .map(|event| match &**event {
//!                 OrderEvent::Placed { product, cents } => (product.clone(), *cents),
//!             })
//!             .key_by(|(product, _)| product.clone())
//!             .tumbling(Duration::from_mins(1))
//!             .folded::<Sales>()
//!             .into_view();
//!     })
//! }
//! ```

mod append;
mod blueprint;
mod clock_event;
mod clocks;
mod dead;
mod divide;
mod graph;
mod handle;
mod heartbeat;
mod hot;
mod intake;
mod join;
mod journal;
mod keyed;
mod look_up;
mod machine;
mod on_time;
mod ordered;
mod outbox;
mod output;
mod panics;
mod part;
mod prepared;
mod results;
mod rows;
mod sender;
mod share;
mod source;
mod stream;
mod table;
mod trial;
mod verify;
mod view_table;
mod window_key;
mod windows;
mod wire;
mod work;

use std::fmt;
use std::sync::Arc;

pub use annals_runner::HotKey;
/// Changes of tables, and folds that follow them.
pub use annals_streams::{Change as TableChange, TakeBack};
/// Folds, and what they are about.
pub use annals_streams::{
    Collect, Count, Distinct, Fold, Largest, Late, Max, Mean, Min, Sum, Time, Window,
};
/// Patterns of items.
pub use annals_streams::{Match, Pattern, Skip};
/// Bounds of joins, also negative ones, and the items of their two sides.
pub use annals_streams::{Side, Span, Within};
pub use append::Appended;
pub use dead::DeadRecord;
pub use handle::{PipelineHandle, PipelineStatus, Pipelines, SlotClock};
pub use heartbeat::Heartbeat;
pub use intake::{Intake, IntakeSetup, IntakeStatus, Offered, Overload};
pub use keyed::{Keyed, PipelineKey};
pub use on_time::OnTime;
pub use results::{Results, Windowed};
pub use stream::{Flows, Log, Stream};
pub use table::{Grouped, Table};
pub use trial::{Trial, TrialError};
pub use window_key::{OfWindow, window_at};
pub use windows::{SlidingWindows, Windows};

use self::blueprint::Blueprint;
use self::graph::Graph;
use crate::options::Options;

/// For tests: what the slots of a generation keep, entry by entry, whatever its journal looks like.
///
/// # Errors
///
/// What no pipeline wrote.
#[doc(hidden)]
pub fn merged_state(
    stored: &[(bytes::Bytes, bytes::Bytes)],
) -> Result<Vec<(String, String)>, annals_runner::WorkError> {
    let mut journal = journal::Journal::new();
    for (key, value) in stored {
        // What is on its way out is no state.
        if outbox::partition_of(key).is_none() {
            journal.read(key, value)?;
        }
    }
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let mut entries: Vec<_> = journal
        .entries()
        .map(|(at, value)| {
            let address = format!("{} {} {}", at.stage, text(&at.key), text(&at.place));
            (address, text(value))
        })
        .collect();
    entries.sort_unstable();
    Ok(entries)
}

/// The state that a slot may have when nothing else is said.
const STATE_BYTES_MAX: usize = 512 << 20;
/// The events that a slot may have emitted before they are sent, when nothing else is said.
const OUTBOX_EVENTS_MAX: u64 = 100_000;

/// A pipeline: from events to rows of views, in event time. A part of a program.
pub struct Pipeline {
    name: &'static str,
    version: u32,
    graph: Graph,
    by_partition: bool,
    options: Options,
    state_bytes_max: usize,
    outbox_events_max: u64,
}

impl Pipeline {
    /// The pipeline of this name that does this. Raise the version whenever it gives other rows: it
    /// is built again then, beside the one that serves.
    ///
    /// No other pipeline and no view that is folded by itself has the name; one of the views that
    /// the pipeline writes may have it. It must never change.
    ///
    /// ```
    /// # use annals_core::Event;
    /// # use annals_projections::pipeline::Pipeline;
    /// # fn example<Paid: Event + Clone>() -> Pipeline {
    /// Pipeline::new("payments", 1, |log| {
    ///     log.events::<Paid>();
    /// })
    /// # }
    /// ```
    pub fn new(name: &'static str, version: u32, build: impl FnOnce(&Log)) -> Pipeline {
        let graph = Graph::new(name, version);
        build(&Log {
            graph: graph.clone(),
        });
        Pipeline {
            name,
            version,
            graph,
            by_partition: false,
            options: Options::default(),
            state_bytes_max: STATE_BYTES_MAX,
            outbox_events_max: OUTBOX_EVENTS_MAX,
        }
    }

    /// Divides its keys over so many slots, which programs share.
    ///
    /// ```
    /// # use annals_projections::pipeline::Pipeline;
    /// # fn example(sales: Pipeline) {
    /// sales.slots(4);
    /// # }
    /// ```
    #[must_use]
    pub fn slots(mut self, slots: u16) -> Pipeline {
        self.options = self.options.slots(slots);
        self.by_partition = false;
        self
    }

    /// Gives each partition of the log a slot of its own, with all keys of it, instead of dividing
    /// the keys of all partitions: a slot reads one partition and goes by the clock of that one, so
    /// that none waits for a quiet one.
    ///
    /// All events of a key must be in one partition. That is checked for every event: the key is
    /// the [stream](super::pipeline::Stream::key_by_stream), or it is said in which stream it
    /// [is](super::pipeline::Keyed::partitioned_by). The first that is elsewhere stops the slot.
    ///
    /// ```
    /// # use annals_core::Event;
    /// # use annals_projections::pipeline::Pipeline;
    /// # use std::time::Duration;
    /// # fn example<Paid: Event + Clone>() -> Pipeline {
    /// Pipeline::new("payments", 1, |log| {
    ///     let accounts = log.events::<Paid>().key_by_stream();
    ///     accounts.tumbling(Duration::from_mins(1)).count();
    /// })
    /// .by_partition()
    /// # }
    /// ```
    #[must_use]
    pub fn by_partition(mut self) -> Pipeline {
        self.by_partition = true;
        self
    }

    /// With these options.
    ///
    /// ```
    /// # use annals_projections::Options;
    /// # use annals_projections::pipeline::Pipeline;
    /// # fn example(sales: Pipeline) {
    /// sales.options(Options::default().batch_events_max(5_000));
    /// # }
    /// ```
    #[must_use]
    pub fn options(mut self, options: Options) -> Pipeline {
        self.options = options;
        self
    }

    /// A slot stops, and says so, before its state has more bytes than this. Default: 512 MiB.
    ///
    /// ```
    /// # use annals_projections::pipeline::Pipeline;
    /// # fn example(sales: Pipeline) {
    /// sales.state_bytes_max(64 << 20);
    /// # }
    /// ```
    #[must_use]
    pub fn state_bytes_max(mut self, bytes: usize) -> Pipeline {
        self.state_bytes_max = bytes;
        self
    }

    /// A slot that has emitted so many events (at least 1) waits until they were sent, and its
    /// status says so: the log is the buffer. Default: 100,000, and always 64 MiB.
    ///
    /// ```
    /// # use annals_projections::pipeline::Pipeline;
    /// # fn example(fraud: Pipeline) {
    /// fraud.outbox_events_max(1_000);
    /// # }
    /// ```
    #[must_use]
    pub fn outbox_events_max(mut self, events: u64) -> Pipeline {
        self.outbox_events_max = events.max(1);
        self
    }

    /// Runs it without a store, for tests.
    ///
    /// ```
    /// # use annals_core::Event;
    /// # use annals_projections::pipeline::{Pipeline, TrialError};
    /// # fn example<Paid: Event>(payments: Pipeline, paid: Paid) -> Result<(), TrialError> {
    /// let trial = payments.trial().at("10:00:00", paid)?.advance_to("11:00:00")?;
    /// println!("{trial}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn trial(&self) -> Trial {
        Trial::of(self.blueprint())
    }

    fn blueprint(&self) -> Arc<Blueprint> {
        let graph = (self.graph.clone(), self.by_partition);
        let most = (self.state_bytes_max, self.outbox_events_max);
        Arc::new(Blueprint::new(self.name, self.version, graph, most))
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}
