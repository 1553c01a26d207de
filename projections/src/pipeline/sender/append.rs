//! Events of a pipeline into the log.

use annals_core::{Append, AppendError, Failure, IdClash, NewEvent, Partition, Store, StreamId};
use annals_runner::{WorkError, chain};

use super::refused::Refused;
use crate::pipeline::outbox::Order;

/// An event with its id, and where it comes among all.
pub(super) struct Ready {
    pub(super) order: Order,
    pub(super) to: StreamId,
    pub(super) event: NewEvent,
}

/// Appends these events, in this order, and gives those that the store refuses for good: the others
/// go on without them. Those that were appended before come again after a process was killed, with
/// the same ids, and are taken once.
pub(super) async fn append_all(
    store: &dyn Store,
    of: (&str, Partition),
    mut events: &[Ready],
) -> Result<Vec<Refused>, WorkError> {
    let mut refused = Vec::new();
    let mut one_by_one = false;
    while let Some(first) = events.first() {
        let together = match one_by_one {
            true => 1,
            false if store.atomic() => events.len(),
            // Such a store appends to one stream at a time.
            false => events.iter().take_while(|of| of.to == first.to).count(),
        };
        let mut append = Append::default();
        let named = events[..together].iter();
        append.events = named.map(|of| (of.to.clone(), of.event.clone())).collect();
        let done = match store.append(append).await {
            Ok(_) => together,
            // They were appended before the note of it was lost.
            Err(AppendError::IdClash(IdClash::PartlyKnown { first_unknown }))
                if first_unknown > 0 =>
            {
                first_unknown
            }
            Err(AppendError::IdClash(_)) if together > 1 => {
                one_by_one = true;
                0
            }
            // A generation that was replaced meanwhile has sent its own because of this.
            Err(AppendError::IdClash(IdClash::OtherContent { id, .. })) => {
                let pipeline = of.0;
                tracing::warn!(pipeline, %id, "an event was sent before with other content");
                1
            }
            Err(error) if is_about_an_event(&error) => match together {
                1 => {
                    let to = &first.to;
                    let why = chain(&error);
                    let reason = format!("an event for the stream `{to}` was refused: {why}");
                    tracing::warn!(pipeline = of.0, "{reason}; it is a dead record");
                    refused.push(Refused::of(&first.order, reason));
                    1
                }
                _ => {
                    one_by_one = true;
                    0
                }
            },
            Err(error) => return Err(failed(of, first, error)),
        };
        events = &events[done..];
    }
    Ok(refused)
}

/// Whether the store never takes one of the events, and may well take the others.
fn is_about_an_event(error: &AppendError) -> bool {
    match error {
        AppendError::Invalid(_) | AppendError::Conflict(_) => true,
        AppendError::Store(error) => error.failure() == Failure::Invalid,
        _ => false,
    }
}

fn failed(
    (pipeline, partition): (&str, Partition),
    Ready { order, to, .. }: &Ready,
    error: AppendError,
) -> WorkError {
    match error {
        AppendError::Store(error) | AppendError::Unknown(error)
            if matches!(error.failure(), Failure::Unavailable | Failure::Full) =>
        {
            error.into()
        }
        error @ (AppendError::NotOwner { .. } | AppendError::OwnershipMoving) => {
            error.into_store_error().into()
        }
        error => WorkError::Stopped(format!(
            "the events from that for stream `{to}` on, which position {cause} of partition \
             {partition} caused, cannot be appended: {}. Nothing more is sent; make the store take \
             them, or skip what {cause} caused with `skip_sending` of pipeline `{pipeline}`",
            chain(&error),
            cause = order.position,
        )),
    }
}
