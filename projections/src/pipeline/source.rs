//! Where a pipeline begins: events of a type, decoded, with their time.

use std::sync::{Arc, Mutex, PoisonError};

use annals_core::{Event, Recorded, RecordedEvent};
use annals_runner::contained;
use annals_streams::{Batch, Page, Row, Span, Time};

use super::graph::{Making, Node, Port};

/// What a source says about time.
pub(crate) struct Settings<E> {
    pub(crate) delay: Span,
    pub(crate) at_most_ahead: Option<Span>,
    pub(crate) own_clock: bool,
    pub(crate) dead_letters: bool,
    pub(crate) timed_by: Option<TimeOf<E>>,
}

type TimeOf<E> = Arc<dyn Fn(&Recorded<E>) -> Time + Send + Sync>;

impl<E> Default for Settings<E> {
    fn default() -> Settings<E> {
        Settings {
            delay: Span::ZERO,
            at_most_ahead: None,
            own_clock: false,
            dead_letters: false,
            timed_by: None,
        }
    }
}

impl<E> Clone for Settings<E> {
    fn clone(&self) -> Settings<E> {
        Settings {
            timed_by: self.timed_by.clone(),
            ..*self
        }
    }
}

/// Events of the type `E`.
pub(crate) struct EventSource<E> {
    pub(crate) node: Node<Recorded<E>>,
    pub(crate) settings: Mutex<Settings<E>>,
}

/// The same, its type forgotten.
pub(crate) trait Source: Send + Sync {
    /// The stored names of its events.
    fn types(&self) -> Vec<&'static str>;

    /// What is part of the plan.
    fn parameters(&self) -> Vec<(&'static str, i64)>;

    /// How late its records may be, and whether it keeps its own time.
    fn clock(&self) -> (Span, bool);

    /// For a page.
    fn open(&self, making: &mut Making) -> Box<dyn OpenSource>;
}

/// What became of a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// It is in the page, and this is its time.
    At(Time),
    /// It is not of this type after all, or was read as no event.
    Nothing,
    /// Its time is too far after its recording.
    Ahead(Time),
    /// It cannot be decoded; whether the source sends such ones to the dead letters.
    Unreadable { reason: String, goes_on: bool },
}

/// A source at work.
pub(crate) trait OpenSource: Send {
    /// Takes a record in, as this cause of the page.
    fn read(&mut self, cause: usize, record: RecordedEvent) -> Read;

    /// The time of a record that is skipped, as far as it is known without reading it.
    fn time_unread(&self, occurred: Time, recorded: Time) -> Option<Time>;

    /// Sends what was taken in on its way.
    fn send(&mut self, page: &Page);
}

impl<E: Event> Source for EventSource<E> {
    fn types(&self) -> Vec<&'static str> {
        E::shapes().iter().map(|shape| shape.event_type).collect()
    }

    fn parameters(&self) -> Vec<(&'static str, i64)> {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        vec![
            ("delay", settings.delay.micros()),
            ("own_clock", i64::from(settings.own_clock)),
            ("timed", i64::from(settings.timed_by.is_some())),
            ("ahead", settings.at_most_ahead.map_or(-1, Span::micros)),
            ("dead_letters", i64::from(settings.dead_letters)),
        ]
    }

    fn clock(&self) -> (Span, bool) {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        (settings.delay, settings.own_clock)
    }

    fn open(&self, making: &mut Making) -> Box<dyn OpenSource> {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        Box::new(Opened {
            settings: settings.clone(),
            rows: Vec::new(),
            then: self.node.port(making),
        })
    }
}

struct Opened<E> {
    settings: Settings<E>,
    rows: Vec<Row<Recorded<E>>>,
    then: Port<Recorded<E>>,
}

/// The event time of a record.
pub(crate) fn micros(moment: annals_core::chrono::DateTime<annals_core::chrono::Utc>) -> Time {
    Time::from_micros(moment.timestamp_micros())
}

impl<E: Event> OpenSource for Opened<E> {
    fn read(&mut self, cause: usize, record: RecordedEvent) -> Read {
        let occurred = micros(record.occurred_at);
        let recorded = micros(record.recorded_at);
        let goes_on = self.settings.dead_letters;
        let decoded = match contained(|| Recorded::<E>::decode(record)) {
            Ok(Ok(decoded)) => decoded,
            Ok(Err(error)) => {
                let reason = annals_runner::chain(&error);
                return Read::Unreadable { reason, goes_on };
            }
            Err(reason) => return Read::Unreadable { reason, goes_on },
        };
        let when = 2 * cause as u32 + 1;
        let before = self.rows.len();
        let mut newest: Option<Time> = None;
        for item in decoded {
            let time = match &self.settings.timed_by {
                None => occurred,
                Some(time) => match contained(|| time(&item)) {
                    Ok(time) => time,
                    Err(reason) => {
                        self.rows.truncate(before);
                        return Read::Unreadable {
                            reason,
                            goes_on: true,
                        };
                    }
                },
            };
            let ahead = self.settings.at_most_ahead;
            if ahead.is_some_and(|ahead| time > recorded + ahead) {
                self.rows.truncate(before);
                return Read::Ahead(time);
            }
            newest = newest.max(Some(time));
            self.rows.push(Row { when, time, item });
        }
        newest.map_or(Read::Nothing, Read::At)
    }

    fn time_unread(&self, occurred: Time, recorded: Time) -> Option<Time> {
        let settings = &self.settings;
        let ahead = settings.at_most_ahead;
        let is_ahead = ahead.is_some_and(|ahead| occurred > recorded + ahead);
        (settings.timed_by.is_none() && !is_ahead).then_some(occurred)
    }

    fn send(&mut self, page: &Page) {
        Batch::send(page, &mut self.rows, &mut *self.then);
    }
}
