//! Records of a pipeline into outlets, which keep with each batch how far it was sent.

use std::collections::BTreeMap;

use annals_core::{EventId, LogId, Outgoing, Outlet, OutletError, OutletMark, Partition, Position};
use annals_runner::WorkError;
use serde::{Deserialize, Serialize};

use crate::pipeline::append::OpenOutlet;

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
    next: Vec<Outgoing>,
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
                next: Vec::new(),
            });
        }
        Ok(Outlets(opened))
    }

    /// A record of the next batch, unless it was taken before.
    pub(super) fn add(
        &mut self,
        number: u16,
        (partition, cause): (Partition, Position),
        record: Outgoing,
    ) -> Result<(), WorkError> {
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
            of.next.push(record);
        }
        Ok(())
    }

    /// Whether anything was added that is not sent yet.
    pub(super) fn have_records(&self) -> bool {
        self.0.iter().any(|of| !of.next.is_empty())
    }

    /// Sends what was added. `goes_on`: more may come of the last cause.
    pub(super) async fn take(&mut self, up_to: UpTo, goes_on: bool) -> Result<(), WorkError> {
        for of in &mut self.0 {
            let records = std::mem::take(&mut of.next);
            if records.is_empty() {
                continue;
            }
            let part = match goes_on {
                true => Part {
                    cause: of.counted_of.1.get(),
                    records: of.counted,
                },
                false => Part::default(),
            };
            let note = match goes_on {
                true => serde_json::to_vec(&part)
                    .expect("numbers can be written")
                    .into(),
                false => bytes::Bytes::new(),
            };
            let UpTo {
                log,
                partition,
                position,
                event,
            } = up_to;
            let mark = OutletMark {
                log,
                partition,
                position,
                event,
                note,
            };
            of.outlet.take(records, mark).await.map_err(failed)?;
            of.taken.insert(partition, Taken { position, part });
        }
        Ok(())
    }
}

fn failed(error: OutletError) -> WorkError {
    match error {
        // Opening it again tells.
        OutletError::Undecided(error) | OutletError::Store(error) => error.into(),
        OutletError::Refused(why) => {
            WorkError::Stopped(format!("the outlet refuses a batch: {why}"))
        }
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

    /// Sends records of causes, the last of which may go on, from where the outlet has come.
    async fn send(topic: &Topic, log: LogId, records: &[(u64, &str)], goes_on: bool) {
        let opens = topic.clone();
        let open: OpenOutlet = Arc::new(move || Ok(Box::new(opens.clone())));
        let mut outlets = Outlets::open(vec![open], log).await.unwrap();
        for (cause, name) in records {
            let at = (Partition(0), Position::new(*cause));
            outlets.add(0, at, record(name)).unwrap();
        }
        let last = Position::new(records.last().unwrap().0);
        let up_to = UpTo {
            log,
            partition: Partition(0),
            position: if goes_on { last.minus(1) } else { last },
            event: None,
        };
        if outlets.have_records() {
            outlets.take(up_to, goes_on).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_cause_that_was_taken_in_part_goes_on_there() {
        let topic = Topic::default();
        let log = LogId::random();
        send(&topic, log, &[(3, "a"), (7, "b"), (7, "c")], true).await;
        // Who begins anew begins with the whole cause.
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
