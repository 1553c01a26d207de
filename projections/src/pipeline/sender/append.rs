//! Events of a pipeline into the log.

use annals_core::{
    Append, AppendError, Failure, IdClash, NewEvent, Partition, Position, Store, StoreError,
    StreamId,
};
use annals_runner::{WorkError, chain};

/// An event with its id, and the position of its cause.
pub(super) type Ready = (Position, StreamId, NewEvent);

/// Appends these events, in this order. Those that were appended before come again after a process
/// was killed, with the same ids, and are taken once.
pub(super) async fn append_all(
    store: &dyn Store,
    of: (&str, Partition),
    mut events: &[Ready],
) -> Result<(), WorkError> {
    let mut one_by_one = false;
    while let Some((_, first, _)) = events.first() {
        let together = match one_by_one {
            true => 1,
            false if store.atomic() => events.len(),
            // Such a store appends to one stream at a time.
            false => events.iter().take_while(|(_, to, _)| to == first).count(),
        };
        let mut append = Append::default();
        let named = events[..together].iter();
        append.events = named
            .map(|(_, to, event)| (to.clone(), event.clone()))
            .collect();
        let done = match store.append(append).await {
            Ok(_) => together,
            // They were appended before the note of it was lost.
            Err(AppendError::IdClash(IdClash::PartlyKnown { first_unknown }))
                if first_unknown > 0 =>
            {
                first_unknown
            }
            Err(AppendError::IdClash(_) | AppendError::Invalid(_)) if together > 1 => {
                one_by_one = true;
                0
            }
            Err(AppendError::Store(error))
                if together > 1 && error.failure() == Failure::Invalid =>
            {
                one_by_one = true;
                0
            }
            // A generation that was replaced meanwhile has sent its own because of this.
            Err(AppendError::IdClash(IdClash::OtherContent { id, .. })) => {
                let pipeline = of.0;
                tracing::warn!(pipeline, %id, "an event was sent before with other content");
                1
            }
            Err(error) => return Err(failed(of, &events[0], error)),
        };
        events = &events[done..];
    }
    Ok(())
}

fn failed(
    (pipeline, partition): (&str, Partition),
    (cause, to, _): &Ready,
    error: AppendError,
) -> WorkError {
    match error {
        AppendError::Store(error) | AppendError::Unknown(error)
            if matches!(error.failure(), Failure::Unavailable | Failure::Full) =>
        {
            error.into()
        }
        error @ AppendError::NotOwner { .. } => {
            let why = error.to_string();
            StoreError::new(Failure::Unavailable, why).into()
        }
        error => WorkError::Stopped(format!(
            "the event for stream `{to}` that position {cause} of partition {partition} caused is \
             refused: {}. Nothing after it is sent; make the store take it, or leave out what \
             {cause} caused with `skip_sending` of pipeline `{pipeline}`",
            chain(&error)
        )),
    }
}
