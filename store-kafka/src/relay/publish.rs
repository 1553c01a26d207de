//! Opening the outlet, continuing after its marks, and batch after batch.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use annals_core::{Backoff, Outlet, OutletError, OutletMark, Partition, Position, ReadLog, Store};
use annals_runner::CommittedStep;
use bytes::Bytes;

use super::reports::Reports;
use super::{BATCH_EVENTS_MAX, Relay};

/// How long it waits at the end of the log until it looks again without having been told.
const POLL: Duration = Duration::from_secs(1);

/// How far a partition has come.
struct Place {
    /// The last mark: where another relay would continue.
    marked: Position,
    /// Up to where it was read; nothing in between is to be published.
    read_to: Position,
}

impl Relay {
    /// Opens the outlet and publishes until something is wrong.
    pub(super) async fn publish(
        &self,
        log: &dyn Store,
        outlet: &mut dyn Outlet,
        backoff: &mut Backoff,
        reports: &dyn Reports,
    ) -> OutletError {
        match self.try_publish(log, outlet, backoff, reports).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn try_publish(
        &self,
        log: &dyn Store,
        outlet: &mut dyn Outlet,
        backoff: &mut Backoff,
        reports: &dyn Reports,
    ) -> Result<Infallible, OutletError> {
        let marks = outlet.open().await?;
        let mut places: Vec<Place> = Vec::new();
        for partition in (0..log.partitions()).map(Partition) {
            let mark = marks.iter().find(|mark| mark.partition == partition);
            if let Some(mark) = mark {
                self.check_log(log, mark).await?;
            }
            let marked = mark.map_or(Position::START, |mark| mark.position);
            places.push(Place {
                marked,
                read_to: marked,
            });
            reports.begins(partition, marked);
        }
        let mut hint = log.hint();
        loop {
            hint.reset();
            let mut more = false;
            for (partition, place) in (0..).map(Partition).zip(&mut places) {
                more |= self
                    .publish_next(log, outlet, partition, place, reports)
                    .await?;
                backoff.reset();
            }
            if !more {
                hint.wait(POLL).await;
            }
        }
    }

    /// Publishes one batch of a partition; whether there is more.
    async fn publish_next(
        &self,
        log: &dyn Store,
        outlet: &mut dyn Outlet,
        partition: Partition,
        place: &mut Place,
        reports: &dyn Reports,
    ) -> Result<bool, OutletError> {
        let batch = self.next_batch(log, partition, place.read_to).await?;
        let first = batch.events.first().map(|event| event.recorded_at);
        reports.found(partition, batch.head, first);
        if batch.up_to == place.read_to {
            return Ok(false);
        }
        let began = Instant::now();
        let outgoing = self.outgoing(&batch.events, log.id())?;
        let events = outgoing.len() as u64;
        // A mark alone says how far a log was read that has nothing to publish; it is written only
        // now and then, with the next events or when much was passed.
        let passed = batch.up_to.get() - place.marked.get();
        if !outgoing.is_empty() || passed >= BATCH_EVENTS_MAX as u64 {
            let mark = OutletMark {
                log: log.id(),
                partition,
                position: batch.up_to,
                event: batch.event,
                note: Bytes::new(),
            };
            outlet.take(outgoing, mark).await?;
            place.marked = batch.up_to;
        }
        place.read_to = batch.up_to;
        let last = batch.events.last().map(|event| event.recorded_at);
        let step = CommittedStep {
            events,
            rows: 0,
            took: began.elapsed(),
            oldest: last.filter(|_| !batch.at_end),
        };
        reports.published(partition, batch.up_to, step);
        Ok(!batch.at_end)
    }

    /// Stops when the log is not the one that was published so far.
    async fn check_log(&self, log: &dyn Store, mark: &OutletMark) -> Result<(), OutletError> {
        let stop = |what: String| {
            Err(OutletError::Refused(format!(
                "{what}; nothing was published. If this is the log that is meant, publish it under \
                 another name of the relay, to other topics"
            )))
        };
        if mark.log != log.id() {
            return stop(format!(
                "it has published the log {} so far, this is {}",
                mark.log,
                log.id()
            ));
        }
        let head = log.head(mark.partition).await?.visible;
        if head < mark.position {
            return stop(format!(
                "the log ends at {head} and was published up to {}: it was restored or rewound",
                mark.position
            ));
        }
        let Some(event) = mark.event else {
            return Ok(());
        };
        let read = ReadLog::after(mark.position.minus(1))
            .up_to(mark.position)
            .partition(mark.partition)
            .limit(1);
        let found = log.read(read).await?.events.first().map(|event| event.id);
        if found.is_some_and(|found| found != event) {
            return stop(format!(
                "the event at {} is not the one that was published: the log was restored",
                mark.position
            ));
        }
        Ok(())
    }
}
