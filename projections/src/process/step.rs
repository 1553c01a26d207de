//! What a process manager wants to be done.

use std::fmt;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Aggregate, Annals, CommandError, Handle, LoadError, to_microseconds};

use super::Process;
use annals_runner::BoxFuture;

/// Something that a process manager wants to be done.
///
/// Commands are given first, in their order; then what it emits, its deadlines and its end are
/// recorded in its stream, all of it or nothing. After a crash in between it is asked again, with
/// the same state, and what was done is not done again.
pub struct Step<P: Process>(pub(super) Kind<P>);

pub(super) enum Kind<P: Process> {
    Send {
        send: Send,
        refused: Option<P::Event>,
    },
    Emit(P::Event),
    Deadline {
        name: String,
        at: DateTime<Utc>,
    },
    Cancel {
        name: String,
    },
    Finish,
}

pub(super) type Send =
    Box<dyn FnOnce(Annals, String) -> BoxFuture<'static, Result<(), NotSent>> + std::marker::Send>;

/// Why a command took no effect.
#[derive(Debug)]
pub(super) enum NotSent {
    Refused(String),
    Passing(String),
    Permanent(String),
}

impl<P: Process> Step<P> {
    /// Gives a command to the aggregate of this id, once. A refusal makes the event a dead
    /// letter, unless [`if_refused`](Step::if_refused) says what it means.
    pub fn send<A, C>(id: impl fmt::Display, command: C) -> Step<P>
    where
        A: Aggregate + Handle<C>,
        A::Error: fmt::Display + 'static,
        C: std::marker::Send + Sync + 'static,
    {
        let id = id.to_string();
        let send = move |db: Annals, key: String| -> BoxFuture<'static, _> {
            Box::pin(async move {
                let aggregate = db.aggregate::<A>(id);
                match aggregate.execute(command).idempotency_key(key).await {
                    Ok(_) => Ok(()),
                    Err(error) => Err(NotSent::of(error)),
                }
            })
        };
        Step(Kind::Send {
            send: Box::new(send),
            refused: None,
        })
    }

    /// Records this in the process manager's stream when the command is refused. Other steps are
    /// left as they are.
    #[must_use]
    pub fn if_refused(mut self, event: P::Event) -> Step<P> {
        if let Kind::Send { refused, .. } = &mut self.0 {
            *refused = Some(event);
        }
        self
    }

    /// Records an event in the process manager's stream.
    pub fn emit(event: P::Event) -> Step<P> {
        Step(Kind::Emit(event))
    }

    /// Sets a deadline; one of the same name is set again. It is reached when the clock of the
    /// program says so, also when no program ran at that moment.
    pub fn deadline(name: impl Into<String>, at: DateTime<Utc>) -> Step<P> {
        Step(Kind::Deadline {
            name: name.into(),
            at: to_microseconds(at),
        })
    }

    /// Cancels a deadline, if it is set.
    pub fn cancel_deadline(name: impl Into<String>) -> Step<P> {
        Step(Kind::Cancel { name: name.into() })
    }

    /// Ends the process manager: its deadlines are cancelled, and later events do not concern it.
    pub fn finish() -> Step<P> {
        Step(Kind::Finish)
    }
}

impl NotSent {
    fn of<E: fmt::Display>(error: CommandError<E>) -> NotSent {
        let said = error.to_string();
        match error {
            CommandError::Refused(_)
            | CommandError::AlreadyExists { .. }
            | CommandError::NotFound { .. } => NotSent::Refused(said),
            error if is_permanent(&error) => NotSent::Permanent(said),
            _ => NotSent::Passing(said),
        }
    }
}

/// Whether a command fails in the same way as often as it is given.
pub(super) fn is_permanent<E>(error: &CommandError<E>) -> bool {
    match error {
        CommandError::Tombstoned { .. }
        | CommandError::Invalid(_)
        | CommandError::Encode(_)
        | CommandError::Panicked(_) => true,
        CommandError::Load(error) => !matches!(error, LoadError::Store(_)),
        _ => false,
    }
}

impl<P: Process> fmt::Debug for Step<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Send { .. } => f.write_str("Send"),
            Kind::Emit(_) => f.write_str("Emit"),
            Kind::Deadline { name, at } => write!(f, "Deadline({name:?}, {at})"),
            Kind::Cancel { name } => write!(f, "Cancel({name:?})"),
            Kind::Finish => f.write_str("Finish"),
        }
    }
}
