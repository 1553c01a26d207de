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
