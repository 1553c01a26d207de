//! Opening the outlet, continuing after its marks, and batch after batch.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use annals_core::{
    Backoff, Outgoing, Outlet, OutletError, OutletMark, Partition, Position, ReadLog,
    RecordedEvent, Store, StoreError,
};
use annals_runner::CommittedStep;
use bytes::Bytes;

use super::reports::Reports;
use super::{BATCH_EVENTS_MAX, Relay};
use crate::cloud_events;

/// How long it waits at the end of the log until it looks again without having been told.
const POLL: Duration = Duration::from_secs(1);

/// How far a partition has come.
struct Place {
    /// The last mark: where another relay would continue.
    marked: Position,
    /// Up to where it was read; nothing in between is to be published.
    read_to: Position,
    /// Whether there is no mark: then nothing of it may have been published.
    is_unmarked: bool,
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
                is_unmarked: mark.is_none(),
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
            if place.is_unmarked {
                self.check_unpublished(log, outlet, partition, &outgoing)
                    .await?;
            }
            let taken = outlet.take(outgoing, mark).await;
            match &taken {
                Ok(()) => self.batch_limit.committed(),
                Err(OutletError::Undecided(_)) => self.batch_limit.failed(),
                Err(_) => {}
            }
            taken?;
            place.marked = batch.up_to;
            place.is_unmarked = false;
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
        let found = event_at(log, mark.partition, mark.position).await?;
        if found.is_some_and(|found| found.id != event) {
            return stop(format!(
                "the event at {} is not the one that was published: the log was restored",
                mark.position
            ));
        }
        Ok(())
    }

    /// Stops when a topic ends with events that would be published from the start: there was a
    /// mark, and it is lost.
    async fn check_unpublished(
        &self,
        log: &dyn Store,
        outlet: &mut dyn Outlet,
        partition: Partition,
        batch: &[Outgoing],
    ) -> Result<(), OutletError> {
        let topics: BTreeSet<&str> = batch.iter().map(|outgoing| &*outgoing.to).collect();
        for topic in topics {
            for last in outlet.last_in(topic).await?.iter().rev() {
                let Some((id, position)) = cloud_events::place_in(&last.headers, log.id()) else {
                    continue;
                };
                let event = event_at(log, partition, position).await?;
                let Some(event) = event.filter(|event| event.id == id) else {
                    continue;
                };
                let is_sent =
                    self.types.is_empty() || self.types.iter().any(|of| **of == *event.event_type);
                if is_sent && (self.route)(&event).as_deref() == Some(topic) {
                    return Err(OutletError::Refused(format!(
                        "topic `{topic}` holds event {id} of this log, up to position {position} \
                         and perhaps beyond, and there is no mark that says so: `annals.progress` \
                         has lost it, or another relay has published the same. Nothing was \
                         published: it would be there twice. Remove the topic, and everything is \
                         published from the start; or publish to another topic under another name \
                         of the relay"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// The event at a position, when there is one.
async fn event_at(
    log: &dyn Store,
    partition: Partition,
    position: Position,
) -> Result<Option<RecordedEvent>, StoreError> {
    let read = ReadLog::after(position.minus(1))
        .up_to(position)
        .partition(partition)
        .limit(1);
    Ok(log.read(read).await?.events.into_iter().next())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use annals_core::{Append, EventStore as _, Log as _, MemoryStore, NewEvent, StreamId};
    use async_trait::async_trait;
    use tokio::sync::watch;

    use super::*;
    use crate::error::unavailable;

    /// Delivers two records in the time that it has, and not more.
    #[derive(Debug, Default)]
    struct SlowLink {
        mark: Option<OutletMark>,
        failures: u32,
        sizes: watch::Sender<Vec<usize>>,
    }

    #[async_trait]
    impl Outlet for SlowLink {
        async fn open(&mut self) -> Result<Vec<OutletMark>, OutletError> {
            Ok(self.mark.iter().cloned().collect())
        }

        async fn take(
            &mut self,
            batch: Vec<Outgoing>,
            mark: OutletMark,
        ) -> Result<(), OutletError> {
            if batch.len() > 2 {
                self.failures += 1;
                assert!(self.failures <= 2, "{} records once more", batch.len());
                return Err(OutletError::Undecided(unavailable("not delivered in time")));
            }
            self.mark = Some(mark);
            self.sizes.send_modify(|sizes| sizes.push(batch.len()));
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_batch_that_was_not_delivered_comes_again_in_parts() {
        let store = MemoryStore::new();
        let stream = StreamId::new("account-a").unwrap();
        let events = (0..20).map(|_| NewEvent::json("account.counted", "7"));
        store.append(Append::new(stream, events)).await.unwrap();
        let mut relay = Relay::named("slow").batch_events_max(8);
        relay.route = Arc::new(|_| Some("accounts".to_owned()));
        let mut outlet = SlowLink::default();
        let mut sizes = outlet.sizes.subscribe();
        let all_taken = async move {
            let is_all = |sizes: &Vec<usize>| sizes.iter().sum::<usize>() >= 20;
            let _ = sizes.wait_for(is_all).await;
        };
        let published = relay.follow(&store, &mut outlet, all_taken).await;
        published.unwrap();
        assert_eq!(*outlet.sizes.borrow(), [2; 10]);
        assert_eq!(outlet.failures, 2);
        let head = store.head(Partition(0)).await.unwrap().visible;
        assert_eq!(outlet.mark.map(|mark| mark.position), Some(head));
    }
}
