//! Records of a pipeline into outlets, which keep with each batch how far it was sent.

use std::collections::{BTreeMap, VecDeque};

use annals_core::{EventId, LogId, Outgoing, Outlet, OutletError, OutletMark, Partition, Position};
use annals_runner::WorkError;
use serde::{Deserialize, Serialize};

use super::refused::Refused;
use crate::pipeline::append::OpenOutlet;
use crate::pipeline::outbox::Order;

/// The outlets of a pipeline, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Outlets(Vec<OpenedOutlet>);

#[derive(Debug)]
struct OpenedOutlet {
    outlet: Box<dyn Outlet>,
    taken: BTreeMap<Partition, Taken>,
    /// How many records were added of the cause that is being sent.
    counted: u64,
    counted_of: (Partition, Position),
    next: VecDeque<Next>,
    /// Whether what is next was refused as a batch: its records go one by one.
    one_by_one: bool,
}

/// A record of the next batch, and how many of its cause it completes.
#[derive(Clone, Debug)]
struct Next {
    order: Order,
    counted: u64,
    record: Outgoing,
}

/// How far an outlet has taken what a partition caused.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    position: Position,
    part: Part,
}

/// What was taken of the causes after that position.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Part {
    cause: u64,
    records: u64,
}

/// Up to where a batch goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct UpTo {
    pub(super) log: LogId,
    pub(super) partition: Partition,
    pub(super) position: Position,
    pub(super) event: Option<EventId>,
}

impl Outlets {
    /// Opens them all, and shuts out who had them before.
    pub(super) async fn open(all: Vec<OpenOutlet>, log: LogId) -> Result<Outlets, WorkError> {
        let mut opened = Vec::new();
        for open in all {
            let mut outlet = open()?;
            let mut taken = BTreeMap::new();
            for mark in outlet.open().await.map_err(failed)? {
                if mark.log != log {
                    return Err(WorkError::Stopped(format!(
                        "the outlet has published the log {} so far, this is {log}; nothing was \
                         sent. Publish to another outlet",
                        mark.log
                    )));
                }
                let part = match &mark.note[..] {
                    b"" => Part::default(),
                    note => serde_json::from_slice(note).map_err(|_| {
                        let what = "the outlet belongs to something else than this pipeline; give \
                                    it one of its own";
                        WorkError::Stopped(what.into())
                    })?,
                };
                let position = mark.position;
                taken.insert(mark.partition, Taken { position, part });
            }
            opened.push(OpenedOutlet {
                outlet,
                taken,
                counted: 0,
                counted_of: (Partition(0), Position::START),
                next: VecDeque::new(),
                one_by_one: false,
            });
        }
        Ok(Outlets(opened))
    }

    /// A record of the next batch, unless it was taken before.
    pub(super) fn add(
        &mut self,
        number: u16,
        (partition, order): (Partition, Order),
        record: Outgoing,
    ) -> Result<(), WorkError> {
        let cause = Position::new(order.position);
        let Some(of) = self.0.get_mut(usize::from(number)) else {
            // A program of another version emitted it.
            let what = format!("the pipeline has no outlet {number}; start the newest program");
            return Err(WorkError::Stopped(what));
        };
        if of.counted_of != (partition, cause) {
            of.counted_of = (partition, cause);
            of.counted = 0;
        }
        of.counted += 1;
        let Taken { position, part } = of.taken.get(&partition).copied().unwrap_or_default();
        let is_taken = part.cause == cause.get() && of.counted <= part.records;
        if cause > position && !is_taken {
            let counted = of.counted;
            of.next.push_back(Next {
                order,
                counted,
                record,
            });
        }
        Ok(())
    }

    /// Whether anything was added that is not sent yet.
    pub(super) fn have_records(&self) -> bool {
        self.0.iter().any(|of| !of.next.is_empty())
    }

    /// Sends what was added, up to the first record that its outlet refuses for good, and gives
    /// that: no mark has passed it. Called again once that is kept, it goes on after it; nothing
    /// says that all the others were sent. `goes_on`: more may come of the last cause.
    pub(super) async fn take(
        &mut self,
        up_to: UpTo,
        goes_on: bool,
    ) -> Result<Option<Refused>, WorkError> {
        for of in &mut self.0 {
            if let Some(refused) = of.take(up_to, goes_on).await? {
                return Ok(Some(refused));
            }
        }
        Ok(None)
    }
}

impl OpenedOutlet {
    /// Sends what is next together, or, when that was refused, one after the other: each with the
    /// mark of how far it goes, the last with that of the batch.
    async fn take(&mut self, up_to: UpTo, goes_on: bool) -> Result<Option<Refused>, WorkError> {
        if self.next.is_empty() {
            return Ok(None);
        }
        let UpTo {
            log,
            partition,
            position,
            event,
        } = up_to;
        let (part, note) = match goes_on {
            true => {
                let part = Part {
                    cause: self.counted_of.1.get(),
                    records: self.counted,
                };
                (part, part.note())
            }
            false => (Part::default(), bytes::Bytes::new()),
        };
        self.taken.insert(partition, Taken { position, part });
        let whole = OutletMark {
            log,
            partition,
            position,
            event,
            note,
        };
        if !self.one_by_one && self.next.len() > 1 {
            let batch = self.next.iter().map(|of| of.record.clone()).collect();
            match self.outlet.take(batch, whole.clone()).await {
                Ok(()) => {
                    self.next.clear();
                    return Ok(None);
                }
                Err(OutletError::Refused(_)) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        while let Some(next) = self.next.pop_front() {
            let mark = match self.next.is_empty() {
                true => whole.clone(),
                false => {
                    let part = Part {
                        cause: next.order.position,
                        records: next.counted,
                    };
                    OutletMark {
                        position: Position::new(next.order.position).minus(1),
                        event: None,
                        note: part.note(),
                        ..whole.clone()
                    }
                }
            };
            match self.outlet.take(vec![next.record.clone()], mark).await {
                Ok(()) => {}
                Err(OutletError::Refused(why)) => {
                    self.one_by_one = !self.next.is_empty();
                    return Ok(Some(refusal(&next, &why)));
                }
                Err(error) => return Err(failed(error)),
            }
        }
        self.one_by_one = false;
        Ok(None)
    }
}

fn refusal(next: &Next, why: &str) -> Refused {
    let to = &next.record.to;
    let reason = format!("a record for `{to}` was refused by its outlet: {why}");
    tracing::warn!("{reason}; it is a dead record");
    Refused::of(&next.order, reason)
}

impl Part {
    fn note(&self) -> bytes::Bytes {
        let note = serde_json::to_vec(self);
        note.expect("numbers can be written").into()
    }
}

fn failed(error: OutletError) -> WorkError {
    match error {
        // Opening it again tells.
        OutletError::Undecided(error) | OutletError::Store(error) => error.into(),
        // Also what concerns the destination: it would be so of each record.
        error => WorkError::Stopped(error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use annals_core::chrono::DateTime;
    use async_trait::async_trait;

    use super::*;

    /// Takes no batch with a record for `bad`, and none with one for `missing`, which is no topic.
    #[derive(Clone, Debug, Default)]
    struct Topic(Arc<Mutex<(Vec<String>, Vec<OutletMark>)>>);

    #[async_trait]
    impl Outlet for Topic {
        async fn open(&mut self) -> Result<Vec<OutletMark>, OutletError> {
            Ok(self.0.lock().unwrap().1.clone())
        }

        async fn take(
            &mut self,
            batch: Vec<Outgoing>,
            mark: OutletMark,
        ) -> Result<(), OutletError> {
            if batch.iter().any(|of| &*of.to == "bad") {
                return Err(OutletError::Refused("it is bad".into()));
            }
            if batch.iter().any(|of| &*of.to == "missing") {
                return Err(OutletError::Destination("it is missing".into()));
            }
            let mut topic = self.0.lock().unwrap();
            topic.0.extend(batch.iter().map(|of| of.to.to_string()));
            topic.1 = vec![mark];
            Ok(())
        }
    }

    fn record(name: &str) -> Outgoing {
        Outgoing {
            to: name.into(),
            key: bytes::Bytes::new(),
            payload: None,
            headers: Vec::new(),
            occurred_at: DateTime::UNIX_EPOCH,
        }
    }

    /// Opens the outlet, and adds records of causes from where it has come.
    async fn begin(topic: &Topic, log: LogId, records: &[(u64, &str)]) -> Outlets {
        let opens = topic.clone();
        let open: OpenOutlet = Arc::new(move || Ok(Box::new(opens.clone())));
        let mut outlets = Outlets::open(vec![open], log).await.unwrap();
        for (cause, name) in records {
            let order = Order {
                position: *cause,
                ..Order::default()
            };
            outlets.add(0, (Partition(0), order), record(name)).unwrap();
        }
        outlets
    }

    fn up_to(log: LogId, position: Position) -> UpTo {
        UpTo {
            log,
            partition: Partition(0),
            position,
            event: None,
        }
    }

    /// Sends records of causes, the last of which may go on, from where the outlet has come.
    async fn send(
        topic: &Topic,
        log: LogId,
        records: &[(u64, &str)],
        goes_on: bool,
    ) -> Vec<Refused> {
        let mut outlets = begin(topic, log, records).await;
        let last = Position::new(records.last().unwrap().0);
        let to = if goes_on { last.minus(1) } else { last };
        let mut refused = Vec::new();
        while let Some(next) = outlets.take(up_to(log, to), goes_on).await.unwrap() {
            refused.push(next);
        }
        assert!(!outlets.have_records());
        refused
    }

    fn causes(refused: &[Refused]) -> Vec<u64> {
        refused.iter().map(|of| of.order().position).collect()
    }

    #[tokio::test]
    async fn a_refused_record_holds_no_other_back() {
        let topic = Topic::default();
        let log = LogId::random();
        let records = [(3, "a"), (7, "bad"), (7, "b"), (8, "c"), (9, "bad")];
        let refused = send(&topic, log, &records, false).await;
        let reason = "a record for `bad` was refused by its outlet: it is bad";
        for of in &refused {
            assert_eq!(*of, Refused::of(of.order(), reason.into()));
        }
        assert_eq!(causes(&refused), [7, 9]);
        // A sender that begins again before that is noted sends the others no second time.
        send(&topic, log, &records, false).await;
        assert_eq!(topic.0.lock().unwrap().0, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn no_mark_passes_a_refused_record_that_was_not_given() {
        let topic = Topic::default();
        let log = LogId::random();
        let records = [(3, "a"), (7, "bad"), (7, "b"), (8, "bad"), (9, "c")];
        for (sent, cause) in [(vec!["a"], 7), (vec!["a", "b"], 8)] {
            let mut outlets = begin(&topic, log, &records).await;
            let mut refused = Vec::new();
            // The sender ends when it was given this one, and has not kept it.
            while causes(&refused).last() != Some(&cause) {
                let next = outlets.take(up_to(log, Position::new(9)), false).await;
                refused.push(next.unwrap().unwrap());
            }
            assert_eq!(topic.0.lock().unwrap().0, sent);
        }
        assert_eq!(causes(&send(&topic, log, &records, false).await), [8]);
        assert_eq!(topic.0.lock().unwrap().0, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn a_destination_that_takes_nothing_stops_and_refuses_nothing() {
        let topic = Topic::default();
        let log = LogId::random();
        for records in [&[(3, "missing")][..], &[(3, "a"), (4, "missing")]] {
            let mut outlets = begin(&topic, log, records).await;
            let stopped = outlets.take(up_to(log, Position::new(4)), false).await;
            let is_stopped =
                matches!(&stopped, Err(WorkError::Stopped(why)) if why == "it is missing");
            assert!(is_stopped, "{stopped:?}");
            assert!(topic.0.lock().unwrap().1.is_empty(), "{records:?}");
        }
    }

    #[tokio::test]
    async fn a_cause_that_was_taken_in_part_goes_on_there() {
        let topic = Topic::default();
        let log = LogId::random();
        send(&topic, log, &[(3, "a"), (7, "b"), (7, "c")], true).await;
        // A sender that begins again begins with the whole cause.
        send(
            &topic,
            log,
            &[(7, "b"), (7, "c"), (7, "d"), (9, "e")],
            false,
        )
        .await;
        send(
            &topic,
            log,
            &[(7, "b"), (7, "c"), (7, "d"), (9, "e")],
            false,
        )
        .await;
        assert_eq!(topic.0.lock().unwrap().0, ["a", "b", "c", "d", "e"]);
    }

    #[tokio::test]
    async fn the_outlet_of_another_log_is_refused() {
        let topic = Topic::default();
        send(&topic, LogId::random(), &[(3, "a")], false).await;
        let open: OpenOutlet = Arc::new(move || Ok(Box::new(topic.clone())));
        let refused = Outlets::open(vec![open], LogId::random()).await;
        let reason = refused.unwrap_err().to_string();
        assert!(reason.contains("has published the log"), "{reason}");
    }
}
