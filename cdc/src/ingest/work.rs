//! The work under a lease: what comes next of the source, as events, with a mark.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Annals, EventId};
use annals_runner::{Slot, WorkError};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Settings;
use super::again::TablesAgain;
use super::appends::Appends;
use super::chunk::Held;
use super::events::EventMaker;
use super::handle::Shared;
use super::live::LiveRows;
use super::mark::{Mark, last_mark};
use super::operator::{Decisions, decisions, newest};
use super::pause::Pause;
use super::schemas::Schemas;
use super::source::{Chunk, Source};
use super::status::IngestState;
use crate::schema::TableName;

/// How often one looks for decisions that were made in other processes.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Taking<'a> {
    pub(super) slot: &'a Slot,
    pub(super) name: &'static str,
    pub(super) settings: &'a Settings,
    pub(super) db: &'a Annals,
    pub(super) source: &'a mut dyn Source,
    pub(super) pause: &'a mut Pause,
    pub(super) shared: &'a Shared,
}

/// What one run of the work knows.
pub(super) struct Run<'a> {
    /// The append in flight, and what waits for it. What reads the log settles it first.
    pub(super) appends: Appends<'a>,
    /// The last one that was made, which may be in flight.
    pub(super) mark: Option<Mark>,
    pub(super) schemas: Schemas,
    pub(super) decisions: Decisions,
    pub(super) maker: EventMaker,
    /// Of each table in a snapshot that is not the first: rows that were not read yet.
    pub(super) missing: BTreeMap<TableName, LiveRows>,
    /// Tables that are read again beside the stream.
    pub(super) again: Option<TablesAgain>,
    /// Whether what is appended now is of them.
    pub(super) is_again: bool,
    /// Whether the log may have some of what is appended now.
    pub(super) may_be_known: bool,
    /// Whether the row that is taken in has digests already, because it is made of one of the log.
    pub(super) is_digested: bool,
    /// Truncates of which a part is in.
    pub(super) unfinished: BTreeSet<EventId>,
    /// The messages of which the events are made that are to be appended.
    pub(super) messages: HashMap<EventId, (u32, u64)>,
    /// Of a transaction that comes by parts: what its last record so far became. It waits for the
    /// next part, so that an event is there to say that it is the last, whatever is skipped.
    pub(super) held: Option<Held>,
    /// How many parts of chunks were appended.
    pub(super) parts: u64,
}

impl<'a> Taking<'a> {
    /// Takes in until it is stopped, or something is wrong.
    pub(super) async fn run(&mut self, mut stop: watch::Receiver<bool>) -> Result<(), WorkError> {
        let mut run = tokio::select! {
            () = stopped(&mut stop) => return Ok(()),
            begun = self.begin() => begun?,
        };
        let ended = self.follow(&mut run, &mut stop).await;
        // What was made before it ended is taken in, and what is wrong with that comes first.
        run.appends.settle().await?;
        let confirmed = self.confirm(&mut run).await;
        ended.and(confirmed)
    }

    async fn follow(
        &mut self,
        run: &mut Run<'_>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), WorkError> {
        let mut looked = Instant::now();
        loop {
            self.confirm(run).await?;
            if looked.elapsed() >= LOOK_EVERY {
                let found = newest(self.db.store().as_ref(), self.name).await?;
                if found != run.decisions.version {
                    return Err(WorkError::Restart);
                }
                looked = Instant::now();
            }
            if run.appends.is_full() {
                run.appends.answer().await?;
                continue;
            }
            let chunk = tokio::select! {
                biased;
                () = stopped(stop) => return self.last(run).await,
                next = next(self.source, &mut run.appends) => next?,
            };
            self.take(run, chunk).await?;
        }
    }

    /// Tells the source what is durable.
    async fn confirm(&mut self, run: &mut Run<'_>) -> Result<(), WorkError> {
        let answered = run.appends.take_answered();
        for mark in &answered {
            self.source.confirm(mark).await?;
        }
        if !answered.is_empty() {
            self.measured(run);
        }
        Ok(())
    }

    async fn begin(&mut self) -> Result<Run<'a>, WorkError> {
        self.pause.over(self.db.store().as_ref(), self.name).await?;
        let store = self.db.store().as_ref();
        let (version, mark) = last_mark(store, self.name).await?;
        let decisions = decisions(store, self.name).await?;
        self.pause.decided(decisions.version);
        if decisions.resync.is_some() && decisions.resync > mark.as_ref().and_then(|m| m.decided) {
            self.source.resync();
        }
        let skipped = decisions.messages.iter();
        let skipped: Vec<_> = skipped
            .map(|skip| (skip.partition, skip.position))
            .collect();
        self.source.skip_messages(&skipped);
        let tables = decisions.tables_after(mark.as_ref().and_then(|mark| mark.read_again));
        let names: Vec<_> = tables.iter().map(|(table, _)| table.clone()).collect();
        self.source.read_again(&names);
        self.source.begin(self.name, mark.as_ref()).await?;
        let taken = self.source.status().tables;
        if let Some(reason) = self.settings.lacks_table(self.name, &taken) {
            return Err(WorkError::Stopped(reason));
        }
        let source = mark
            .as_ref()
            .map_or_else(|| "".into(), |mark| Arc::clone(&mark.source));
        self.shared.change(|status| {
            status.state = IngestState::Following;
            status.at = mark.as_ref().and_then(|mark| mark.resume.as_ref()?.lsn());
        });
        let maker = EventMaker::new(source, &self.settings.prefix);
        let db: &'a Annals = self.db;
        let mut run = Run {
            appends: Appends::after(
                (version, mark.clone()),
                self.slot,
                self.name,
                db.store(),
                self.shared,
            ),
            schemas: Schemas::default(),
            decisions,
            maker,
            missing: BTreeMap::new(),
            again: None,
            is_again: false,
            may_be_known: false,
            is_digested: false,
            unfinished: mark
                .as_ref()
                .map_or_else(BTreeSet::new, |mark| mark.unfinished.clone()),
            messages: HashMap::new(),
            held: None,
            parts: 0,
            mark,
        };
        if !tables.is_empty() {
            let rows_max = self.settings.sweep_rows_max;
            let version = run.decisions.version;
            match TablesAgain::of(self.db, &run.maker, &tables, version, rows_max).await {
                Ok(again) => run.again = Some(again),
                Err(error) => {
                    self.gives_up_again(&mut run, Err(error))?;
                }
            }
        }
        Ok(run)
    }

    /// Where one goes on is noted when a program stops in order.
    async fn last(&mut self, run: &mut Run<'_>) -> Result<(), WorkError> {
        run.appends.settle().await?;
        self.confirm(run).await?;
        let known = run
            .mark
            .as_ref()
            .and_then(|mark| mark.resume.as_ref()?.lsn());
        let idle = self.source.idle_at();
        if run.mark.is_some() && idle.as_ref().and_then(|idle| idle.lsn()) > known {
            let chunk = Chunk {
                source: run
                    .mark
                    .as_ref()
                    .map_or_else(|| "".into(), |mark| Arc::clone(&mark.source)),
                resume: idle,
                ..Chunk::default()
            };
            self.take(run, chunk).await?;
        }
        Ok(())
    }

    /// The source has something to say of itself.
    pub(super) fn measured(&self, run: &Run<'_>) {
        let source = self.source.status();
        self.shared.says(source, run.appends.is_settled());
    }
}

/// What comes next of the source. While an append is in flight its answer is waited for too, and
/// what waited for that is started.
async fn next(source: &mut dyn Source, appends: &mut Appends<'_>) -> Result<Chunk, WorkError> {
    if appends.is_settled() {
        return Ok(source.next().await?);
    }
    let answered = Notify::new();
    let mut next = pin!(source.next_until(&answered));
    loop {
        tokio::select! {
            biased;
            answer = appends.answer(), if !appends.is_settled() => {
                answer?;
                answered.notify_one();
            }
            chunk = &mut next => return Ok(chunk?),
        }
    }
}

/// Returns when the work has to end.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The loop that asked for it is gone: that ends the work, too.
    let _ = stop.wait_for(|stop| *stop).await;
}
