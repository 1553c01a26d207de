//! A pipeline without a store: events in, rows out, as a text that tests compare.

use std::fmt;
use std::sync::Arc;

use annals_core::chrono::{DateTime, NaiveTime, Utc};
use annals_core::{
    Event, EventId, Head, LogPage, NewEvent, Partition, Place, Position, RecordedEvent, StreamId,
    Version,
};
use annals_runner::{Skips, WorkError};
use annals_streams::Time;

use super::blueprint::Blueprint;
use super::clock_event::{self, Advanced};
use super::dead::shown;
use super::divide::DivideBy;
use super::machine::{Machine, OutRow, Saving, Taken};
use super::outbox::Entry;
use super::output::{END, Leaving};
use super::prepared::PreparedPage;
use super::share::Share;

/// A pipeline that is tried out. Prints as a story: what came in, and what came out because of it.
///
/// Times are of one day, `10:00` or `10:00:02.5`, or whole ones, `2026-03-31T10:00:00Z`.
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
pub struct Trial {
    blueprint: Arc<Blueprint>,
    machine: Machine,
    position: u64,
    story: String,
}

/// Why a trial cannot go on.
///
/// ```
/// # use annals_projections::pipeline::{Pipeline, TrialError};
/// # fn example(payments: Pipeline) {
/// let error: TrialError = payments.trial().advance_to("noon").unwrap_err();
/// assert!(error.to_string().contains("`noon`"));
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TrialError(String);

impl Trial {
    pub(crate) fn of(blueprint: Arc<Blueprint>) -> Trial {
        let machine = blueprint.machine(Share::everything(1));
        Trial {
            blueprint,
            machine,
            position: 0,
            story: String::new(),
        }
    }

    /// An event that happened then, recorded at the same moment.
    ///
    /// # Errors
    ///
    /// A time that is none, an event that cannot be written, and whatever stops the pipeline.
    ///
    /// ```
    /// # use annals_core::Event;
    /// # use annals_projections::pipeline::{Trial, TrialError};
    /// # fn example<Paid: Event>(trial: Trial, paid: Paid) -> Result<Trial, TrialError> {
    /// trial.at("10:00:02", paid)
    /// # }
    /// ```
    pub fn at<E: Event>(mut self, time: &str, event: E) -> Result<Trial, TrialError> {
        let moment = moment(time)?;
        let mut new = NewEvent::of(&event).map_err(|error| TrialError(error.to_string()))?;
        new.occurred_at = moment;
        let payload = String::from_utf8_lossy(&new.payload).into_owned();
        let said = format!("{time} {} {payload}", new.event_type);
        self.take(new, &said)?;
        Ok(self)
    }

    /// The log says that time has come so far.
    ///
    /// # Errors
    ///
    /// As [`at`](Trial::at).
    ///
    /// ```
    /// # use annals_projections::pipeline::{Trial, TrialError};
    /// # fn example(trial: Trial) -> Result<Trial, TrialError> {
    /// trial.advance_to("11:00")
    /// # }
    /// ```
    pub fn advance_to(mut self, time: &str) -> Result<Trial, TrialError> {
        let to = moment(time)?.timestamp_micros();
        self.advance(Time::from_micros(to), time)?;
        Ok(self)
    }

    /// Nothing more comes: all windows close.
    ///
    /// # Errors
    ///
    /// As [`at`](Trial::at).
    ///
    /// ```
    /// # use annals_projections::pipeline::{Trial, TrialError};
    /// # fn example(trial: Trial) -> Result<Trial, TrialError> {
    /// trial.end()
    /// # }
    /// ```
    pub fn end(mut self) -> Result<Trial, TrialError> {
        self.advance(Time::MAX, "the end:")?;
        Ok(self)
    }

    fn advance(&mut self, to: Time, said: &str) -> Result<(), TrialError> {
        let to = to.micros();
        let payload = serde_json::to_vec(&Advanced { to });
        let payload = payload.map_err(|error| TrialError(error.to_string()))?;
        let new = NewEvent::json(clock_event::TYPE, payload);
        self.take(new, &format!("{said} time has come so far"))
    }

    fn page(&self, record: RecordedEvent) -> PreparedPage {
        let position = record.position;
        let page = LogPage {
            events: vec![record],
            removed: Vec::new(),
            scanned: position,
            end: true,
            head: Head::at(position),
        };
        self.blueprint.prepare(page, Partition(0), DivideBy::One)
    }

    fn take(&mut self, new: NewEvent, said: &str) -> Result<(), TrialError> {
        if let Some(wrong) = self.blueprint.check(1).err() {
            return Err(TrialError(wrong));
        }
        self.position += 1;
        let record = recorded(&new, self.position)?;
        self.story.push_str(said);
        self.story.push('\n');
        let failed = |error: WorkError| TrialError(error.to_string());
        let rows = loop {
            let mut rows = Vec::new();
            let skips = Skips::of(Vec::new());
            let page = self.page(record.clone());
            let before = record.position.minus(1);
            let taken = self.machine.take(&page, before, &skips, &mut rows);
            let redo = match taken.map_err(failed)? {
                Taken::Whole => match self.machine.save().map_err(failed)? {
                    Saving::Writes(_) => break rows,
                    Saving::Redo(redo) => redo,
                },
                Taken::Stuck(stuck) => {
                    let why = self.blueprint.stuck(Partition(0), 1, &stuck);
                    return Err(TrialError(why));
                }
                Taken::Redo(redo) => redo,
            };
            let fresh = self.blueprint.machine(Share::everything(1));
            self.machine.go_back(fresh, redo).map_err(failed)?;
        };
        self.machine.saves_at_once();
        for Entry { what, .. } in self.machine.take_emitted() {
            let line = match &what {
                Leaving::Append(to, event) => {
                    let payload = String::from_utf8_lossy(&event.payload);
                    format!("{to} {} {payload}", event.event_type)
                }
                Leaving::Publish(_, record) => {
                    let key = String::from_utf8_lossy(&record.key);
                    let payload = record.payload.as_deref().unwrap_or(b"removed");
                    format!("{} [{key}] {}", record.to, String::from_utf8_lossy(payload))
                }
            };
            self.story.push_str(&format!("  -> {line}\n"));
        }
        for OutRow { key, value, .. } in rows {
            let (output, key) = key.split_once(END).unwrap_or(("", &key));
            let key = shown(key);
            let value = value.as_deref().map(String::from_utf8_lossy);
            let value = value.unwrap_or_else(|| "removed".into());
            self.story
                .push_str(&format!("  -> {output} [{key}] {value}\n"));
        }
        Ok(())
    }
}

/// Each event has a stream of its own.
fn recorded(new: &NewEvent, position: u64) -> Result<RecordedEvent, TrialError> {
    let stream = StreamId::new(format!("trial-{position}"));
    let place = Place {
        stream: stream.map_err(|error| TrialError(error.to_string()))?,
        version: Version::new(1),
        partition: Partition(0),
        position: Position::new(position),
        append_index: 0,
        recorded_at: new.occurred_at,
    };
    let mut new = new.clone();
    new.id = EventId::derived(&place.stream, "trial", 0);
    Ok(new.recorded(place))
}

fn moment(text: &str) -> Result<DateTime<Utc>, TrialError> {
    if let Ok(moment) = text.parse::<DateTime<Utc>>() {
        return Ok(moment);
    }
    let time = NaiveTime::parse_from_str(text, "%H:%M:%S%.f")
        .or_else(|_| NaiveTime::parse_from_str(text, "%H:%M"));
    let time = time.map_err(|_| {
        TrialError(format!(
            "`{text}` is no time; write `10:00`, `10:00:02.5` or `2026-03-31T10:00:00Z`"
        ))
    })?;
    Ok(DateTime::<Utc>::UNIX_EPOCH
        .date_naive()
        .and_time(time)
        .and_utc())
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.story)
    }
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial")
            .field("pipeline", &self.blueprint.name)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
