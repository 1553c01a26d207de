//! A part of a program that lets time go on in a log where nothing happens.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::{Partition, Position, ReadLog, Store, StoreError};
use annals_runner::{
    BoxFuture, Follower, Kind, Part, RunningPart, Setup, StartError, WorkerContext,
};
use annals_streams::Time;
use tokio::sync::watch;

use super::clock_event;
use super::handle::advance_partition;
use super::source::micros;

/// How many events are looked at when a log has gone on; more are certainly not all of clocks.
const LOOKED_AT: usize = 100;

/// Lets windows close in a quiet log: a part of a program.
///
/// ```
/// use std::time::Duration;
///
/// use annals_projections::With;
/// use annals_projections::pipeline::{Heartbeat, Pipeline};
/// # use annals_core::Annals;
/// # async fn example(db: Annals, sales: Pipeline) -> Result<(), annals_projections::StartError> {
/// let quiet = Heartbeat::when_quiet(Duration::from_secs(10));
/// let db = db.with(sales).with(quiet).start().await?;
/// # db.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Heartbeat {
    after: Duration,
}

impl Heartbeat {
    /// When nothing was recorded in a partition for `after`, event time is said to have come to
    /// `after` before now, as [`advance_clock`](super::Pipelines::advance_clock) says it; again
    /// when the silence is twice as long, and so on. So a window closes at the latest when the
    /// silence is twice as long as it had to be, and a log that stays quiet grows by a few events.
    ///
    /// The wall clock decides here, once: the decision is an event, which every rebuild reads. What
    /// happened before and is recorded afterwards is late. Any number of programs may have this
    /// part: those of one log say the same.
    ///
    /// ```
    /// # use annals_projections::pipeline::Heartbeat;
    /// Heartbeat::when_quiet(std::time::Duration::from_secs(10));
    /// ```
    pub fn when_quiet(after: Duration) -> Heartbeat {
        Heartbeat {
            after: after.max(Duration::from_millis(1)),
        }
    }
}

impl Part for Heartbeat {
    fn add_to(self, setup: Setup) -> Setup {
        setup.with_follower(self)
    }
}

impl Follower for Heartbeat {
    fn kind(&self) -> Kind {
        Kind::Reactor
    }

    fn name(&self) -> (&'static str, u32) {
        ("$heartbeat", 1)
    }

    fn keeps_nothing(&self) -> bool {
        true
    }

    fn start(
        self: Box<Self>,
        context: WorkerContext,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'static, Result<RunningPart, StartError>> {
        Box::pin(async move {
            let part = RunningPart::of_type(TypeId::of::<Heartbeat>(), self.clone());
            let beating = beat(context, self.after, stop);
            Ok(part.supervised_by(tokio::spawn(beating)))
        })
    }
}

/// The silence of a partition.
struct Silence {
    head: Position,
    since: DateTime<Utc>,
    /// How long it lasts when it is told next.
    told_at: TimeDelta,
}

async fn beat(context: WorkerContext, after: Duration, mut stop: watch::Receiver<bool>) {
    let Ok(first) = TimeDelta::from_std(after) else {
        return;
    };
    let mut silences = BTreeMap::new();
    loop {
        for partition in (0..context.log().partitions()).map(Partition) {
            let looked = look(&context, partition, first, &mut silences).await;
            if let Err(error) = looked {
                tracing::warn!(%error, %partition, "a heartbeat failed; it is tried again");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(after / 2) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn look(
    context: &WorkerContext,
    partition: Partition,
    first: TimeDelta,
    silences: &mut BTreeMap<Partition, Silence>,
) -> Result<(), StoreError> {
    let log = context.log();
    let now = context.clock().now();
    let head = log.head(partition).await?.visible;
    let silence = silences.entry(partition).or_insert(Silence {
        head,
        since: now,
        told_at: first,
    });
    if head != silence.head {
        if is_broken(log, partition, silence.head).await? {
            silence.since = now;
            silence.told_at = first;
        }
        silence.head = head;
    }
    if head == Position::START || now - silence.since < silence.told_at {
        return Ok(());
    }
    // Programs that see the same silence say the same, so the log has it once.
    let to = micros(now - first).micros();
    let step = first.num_microseconds().unwrap_or(i64::MAX);
    let to = to.div_euclid(step).saturating_mul(step);
    advance_partition(&**log, partition, Time::from_micros(to)).await?;
    silence.told_at = silence.told_at * 2;
    Ok(())
}

/// Whether something was recorded after this position that is not a clock event.
async fn is_broken(
    log: &Arc<dyn Store>,
    partition: Partition,
    after: Position,
) -> Result<bool, StoreError> {
    let read = ReadLog::after(after).partition(partition).limit(LOOKED_AT);
    let page = log.read(read).await?;
    let is_clock = |name: &str| name == clock_event::TYPE;
    Ok(!page.end || page.events.iter().any(|of| !is_clock(&of.event_type)))
}
