//! What is done about an event: the process manager is asked, commands are given, and then it is
//! recorded that it reacted.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    Annals, Event, Filter, LoadError, RecordedEvent, RowChange, StoreError, Stored, Undecodable,
};

use super::due::{self, row_of};
use super::instance::{CANCELLED, Deadline, Instance, Noted, ProcessEvent, REACHED, Reached, SET};
use super::step::{Kind, NotSent, is_permanent};
use super::{Listens, Process, Step};
use crate::key::RefusedKey;
use crate::reactor::{Call, Handler, ReactError};
use crate::view::step::StepError;
use annals_runner::BoxFuture;
use annals_runner::Slot;

/// An event that concerns a process manager, and what the process manager says about it.
pub(super) struct Trigger<P: Process> {
    pub(super) id: Result<String, RefusedKey>,
    pub(super) record: Arc<RecordedEvent>,
    pub(super) decide: Arc<Decide<P>>,
}

impl<P: Process> Trigger<P> {
    /// One process is asked once about an event, whatever types it reads it as.
    fn join(&mut self, later: Trigger<P>) {
        let earlier = Arc::clone(&self.decide);
        self.decide = Arc::new(move |instance: &Instance<P>| {
            let mut steps = earlier(instance);
            steps.extend((later.decide)(instance));
            steps
        });
    }
}

pub(super) type Decide<P> = dyn Fn(&Instance<P>) -> Vec<Step<P>> + Send + Sync;

/// The process managers of a kind.
pub(super) struct Handles<P: Process> {
    db: Annals,
    listens: Listens<P>,
    // Deadlines that were recorded, and whose rows are still there.
    announced: Mutex<HashSet<String>>,
}

impl<P: Process> Handles<P> {
    pub(super) fn new(db: Annals) -> Handles<P> {
        Handles {
            db,
            listens: P::listens(),
            announced: Mutex::default(),
        }
    }

    /// What a note in the stream of a process manager means, when it is one of these.
    fn noted(&self, record: RecordedEvent) -> Result<Vec<Call>, StepError> {
        if record.stream.category() != P::Event::CATEGORY {
            return Ok(Vec::new());
        }
        let noted = match Noted::decode(&Stored::from(&record)) {
            Some(Ok(noted)) => noted,
            Some(Err(source)) => return Err(Undecodable::new(&record, source).into()),
            None => return Ok(Vec::new()),
        };
        let id = record.stream.id().to_owned();
        let record = Arc::new(record);
        let (deadline, is_set) = match noted {
            Noted::DeadlineSet(deadline) => (deadline, true),
            Noted::DeadlineCancelled(deadline) => (deadline, false),
            Noted::DeadlineReached(deadline) => {
                return Ok(vec![self.reached(id, record, deadline)]);
            }
            Noted::Handled(_) | Noted::Finished => return Ok(Vec::new()),
        };
        let row = row_of(&id, &deadline, is_set);
        let make = move |_| -> BoxFuture<'static, _> {
            let row = row.clone();
            Box::pin(async move { Ok(vec![row]) })
        };
        Ok(vec![Call {
            key: id,
            record,
            make: Arc::new(make),
        }])
    }

    fn reached(&self, id: String, record: Arc<RecordedEvent>, deadline: Deadline) -> Call {
        let row = row_of(&id, &deadline, false);
        let of = id.clone();
        let decide = move |instance: &Instance<P>| match instance.has_reached(&deadline) {
            true => instance.process.reached(&of, &deadline.name),
            false => Vec::new(),
        };
        self.call(id, record, Arc::new(decide), Some(row))
    }

    fn call(
        &self,
        id: String,
        record: Arc<RecordedEvent>,
        decide: Arc<Decide<P>>,
        row: Option<RowChange>,
    ) -> Call {
        let db = self.db.clone();
        let key = id.clone();
        let caused_by = Arc::clone(&record);
        let make = move |_| -> BoxFuture<'static, _> {
            let db = db.clone();
            let id = id.clone();
            let record = Arc::clone(&record);
            let decide = Arc::clone(&decide);
            let row = row.clone();
            Box::pin(async move {
                react(&db, &id, &record, &*decide).await?;
                Ok(row.into_iter().collect())
            })
        };
        Call {
            key,
            record: caused_by,
            make: Arc::new(make),
        }
    }
}

impl<P: Process> Handler for Handles<P> {
    fn filter(&self) -> Filter {
        Filter::default().types(
            self.listens
                .by_type
                .keys()
                .copied()
                .chain([SET, CANCELLED, REACHED]),
        )
    }

    fn prepare(&self, record: RecordedEvent) -> Result<Vec<Call>, StepError> {
        let Some(prepare) = self.listens.by_type.get(&*record.event_type) else {
            return self.noted(record);
        };
        let mut triggers: Vec<Trigger<P>> = Vec::new();
        for prepare in prepare {
            for trigger in prepare(record.clone())? {
                match triggers.iter_mut().find(|of| of.id == trigger.id) {
                    Some(earlier) => earlier.join(trigger),
                    None => triggers.push(trigger),
                }
            }
        }
        let calls = triggers.into_iter().map(|trigger| {
            let Trigger { id, record, decide } = trigger;
            match id {
                Ok(id) => self.call(id, record, decide, None),
                Err(refused) => Call::refused(refused, record),
            }
        });
        Ok(calls.collect())
    }

    fn is_timed(&self) -> bool {
        true
    }

    fn due<'a>(&'a self, slot: &'a Slot) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(due::announce::<P>(&self.db, slot, &self.announced))
    }
}

/// Asks the process manager and does what it says.
///
/// Commands come first and the note that they were given last: as long as that is not there, the
/// state is the same, and so are the commands, which are recognised by their keys.
async fn react<P: Process>(
    db: &Annals,
    id: &str,
    record: &RecordedEvent,
    decide: &Decide<P>,
) -> Result<(), ReactError> {
    let partition = record.partition;
    let position = record.position;
    let process = db.aggregate::<Instance<P>>(id);
    let is_over = move |instance: &Instance<P>| {
        instance.finished || instance.has_handled(partition, position)
    };
    let steps = process.query(|instance| match is_over(instance) {
        true => Vec::new(),
        false => decide(instance),
    });
    let steps = steps.await.map_err(unread)?;
    if steps.is_empty() {
        return Ok(());
    }
    let key = format!("{}:{id}:{}", P::NAME, record.id);
    let mut wanted = Vec::new();
    for (index, Step(kind)) in steps.into_iter().enumerate() {
        let Kind::Send { send, refused } = kind else {
            wanted.push(ToRecord::of(kind));
            continue;
        };
        match (send(db.clone(), format!("{key}:{index}")).await, refused) {
            (Ok(()), _) => {}
            (Err(NotSent::Refused(_)), Some(event)) => wanted.push(ToRecord::Emit(Arc::new(event))),
            (Err(NotSent::Refused(said)), None) => {
                return Err(ReactError::Permanent(format!(
                    "a command was refused: {said}"
                )));
            }
            (Err(NotSent::Permanent(said)), _) => return Err(ReactError::Permanent(said)),
            (Err(NotSent::Passing(said)), _) => return Err(ReactError::Retry(said)),
        }
    }
    let recorded = process.run(|instance: &Instance<P>| {
        Ok::<_, std::convert::Infallible>(match is_over(instance) {
            true => Vec::new(),
            false => events_of(
                instance,
                &wanted,
                Noted::Handled(Reached {
                    partition,
                    position,
                }),
            ),
        })
    });
    match recorded.idempotency_key(key).await {
        Ok(_) => Ok(()),
        Err(error) if is_permanent(&error) => Err(ReactError::permanent(error)),
        Err(error) => Err(ReactError::retry(error)),
    }
}

/// What is to be recorded, as often as it has to be decided.
enum ToRecord<P: Process> {
    Emit(Arc<P::Event>),
    Deadline { name: String, at: DateTime<Utc> },
    Cancel { name: String },
    Finish,
}

impl<P: Process> ToRecord<P> {
    /// Of a step that is no command.
    fn of(kind: Kind<P>) -> ToRecord<P> {
        match kind {
            Kind::Emit(event) => ToRecord::Emit(Arc::new(event)),
            Kind::Deadline { name, at } => ToRecord::Deadline { name, at },
            Kind::Cancel { name } => ToRecord::Cancel { name },
            Kind::Finish | Kind::Send { .. } => ToRecord::Finish,
        }
    }
}

/// The events that record a reaction.
fn events_of<P: Process>(
    instance: &Instance<P>,
    wanted: &[ToRecord<P>],
    handled: Noted,
) -> Vec<ProcessEvent<P>> {
    let mut events = vec![ProcessEvent::Noted(handled)];
    let mut set: BTreeMap<&str, Deadline> = instance
        .deadlines()
        .map(|deadline| (&*deadline.name, deadline.clone()))
        .collect();
    let mut number = instance.numbers();
    let mut note = |noted| events.push(ProcessEvent::Noted(noted));
    for wanted in wanted {
        match wanted {
            ToRecord::Emit(_) => {}
            ToRecord::Deadline { name, at } => {
                set.remove(&**name)
                    .into_iter()
                    .for_each(|before| note(Noted::DeadlineCancelled(before)));
                number += 1;
                let deadline = Deadline {
                    name: name.clone(),
                    at: *at,
                    number,
                };
                note(Noted::DeadlineSet(deadline.clone()));
                set.insert(name, deadline);
            }
            ToRecord::Cancel { name } => {
                set.remove(&**name)
                    .into_iter()
                    .for_each(|before| note(Noted::DeadlineCancelled(before)));
            }
            ToRecord::Finish => {
                std::mem::take(&mut set)
                    .into_values()
                    .for_each(|before| note(Noted::DeadlineCancelled(before)));
                note(Noted::Finished);
            }
        }
    }
    let own = wanted.iter().filter_map(|wanted| match wanted {
        ToRecord::Emit(event) => Some(ProcessEvent::Own(Arc::clone(event))),
        _ => None,
    });
    // What the process emits comes before what becomes of its deadlines.
    events.splice(1..1, own);
    events
}

pub(super) fn unread(error: LoadError) -> ReactError {
    match error {
        LoadError::Store(error) => ReactError::retry(error),
        error => ReactError::permanent(annals_runner::chain(&error)),
    }
}
