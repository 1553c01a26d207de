//! Deduplication: what an append means whose ids the store knows already. Pure; every store asks
//! it.

use std::collections::HashMap;

use crate::append::IdClash;
use crate::event::{Digest, NewEvent};
use crate::position::Position;
use crate::store::Found;
use crate::stream::{StreamId, Version};

/// A known id with the digest of its content.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct StoredId {
    /// Where the event is, and its append.
    pub found: Found,
    /// What its content is compared by.
    pub digest: Digest,
}

/// What an append is, seen from its ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Duplicate {
    /// No id is known: it is new.
    New,
    /// All ids are known: it was done before, and the answer is where these events are.
    Repeated,
    /// A derived id is known, and every id that is not known is derived too: the request was done
    /// before, and the answer is the whole append that did it, `events` events from position
    /// `first` on, whatever is asked for now.
    RequestDone {
        /// The position of its first event.
        first: Position,
        /// How many events it had.
        events: u32,
    },
}

/// Compares an append with what is known of its ids, one entry an event.
///
/// # Errors
///
/// [`IdClash`] when it is neither new nor a repetition.
///
/// ```
/// use annals_core::{NewEvent, Duplicate, StreamId, deduplicate};
///
/// let event = (StreamId::new("note-1")?, NewEvent::json("noted", b"{}".as_slice()));
/// assert_eq!(deduplicate(&[event], &[None]), Ok(Duplicate::New));
/// # Ok::<_, annals_core::Invalid>(())
/// ```
pub fn deduplicate(
    events: &[(StreamId, NewEvent)],
    known: &[Option<StoredId>],
) -> Result<Duplicate, IdClash> {
    let pairs = || events.iter().zip(known);
    if pairs().all(|(_, known)| known.is_none()) {
        return Ok(Duplicate::New);
    }
    let request =
        pairs().find_map(|((_, event), known)| known.as_ref().filter(|_| event.id.is_derived()));
    // What a request decides may differ between two attempts, so its own ids may be fewer or more.
    // An id that was given to an event is another matter: it is new, and must not be dropped.
    let unknown = |((_, event), known): ((_, &NewEvent), &Option<StoredId>)| {
        known.is_none() && (request.is_none() || !event.id.is_derived())
    };
    if pairs()
        .map(|((to, event), known)| ((to, event), known))
        .any(unknown)
        && let Some(first_unknown) = known.iter().position(Option::is_none)
    {
        return Err(IdClash::PartlyKnown { first_unknown });
    }
    if let Some(done) = request {
        let of_one = |known: &StoredId| known.found.append_first == done.found.append_first;
        if !known.iter().flatten().all(of_one) {
            return Err(IdClash::OtherOrder);
        }
        return Ok(Duplicate::RequestDone {
            first: done.found.append_first,
            events: done.found.append_events,
        });
    }
    for (index, ((stream, event), known)) in pairs().enumerate() {
        let Some(known) = known else { continue };
        if known.found.placed.stream != *stream {
            return Err(IdClash::OtherStream {
                index,
                id: event.id,
                stream: known.found.placed.stream.clone(),
            });
        }
        if known.digest != event.digest() {
            return Err(IdClash::OtherContent {
                index,
                id: event.id,
            });
        }
    }
    if in_order(known) {
        Ok(Duplicate::Repeated)
    } else {
        Err(IdClash::OtherOrder)
    }
}

/// Positions ascend, and the versions of each stream follow one another without a hole.
fn in_order(known: &[Option<StoredId>]) -> bool {
    let mut last = Position::START;
    let mut versions: HashMap<&StreamId, Version> = HashMap::new();
    known.iter().flatten().all(|known| {
        let place = &known.found.placed;
        let ascends = last < place.position;
        last = place.position;
        let before = versions.insert(&place.stream, place.version);
        ascends && before.is_none_or(|before| before.next() == place.version)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::append::Placed;
    use crate::event::EventId;
    use crate::position::Partition;

    /// What has no answer by then compares each with each.
    const FOR_EVER: Duration = Duration::from_secs(30);

    fn stored(
        stream: &str,
        version: u64,
        position: u64,
    ) -> ((StreamId, NewEvent), Option<StoredId>) {
        let stream = StreamId::new(stream).unwrap();
        let event = NewEvent::json("t", position.to_string().into_bytes());
        let placed = Placed {
            id: event.id,
            stream: stream.clone(),
            version: Version::new(version),
            partition: Partition(0),
            position: Position::new(position),
        };
        let known = StoredId {
            digest: event.digest(),
            found: Found {
                append_first: placed.position,
                append_events: 1,
                placed,
            },
        };
        ((stream, event), Some(known))
    }

    #[track_caller]
    fn check(rows: Vec<((StreamId, NewEvent), Option<StoredId>)>, expected: &str) {
        let (events, known): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let found = match deduplicate(&events, &known) {
            Ok(duplicate) => format!("{duplicate:?}"),
            Err(clash) => format!("{clash:?}"),
        };
        assert!(found.starts_with(expected), "{found}");
    }

    #[test]
    fn a_repetition_is_known_whole_and_in_order() {
        let [e1, e2, e3] = [
            stored("a-1", 1, 1),
            stored("a-1", 2, 5),
            stored("a-1", 3, 6),
        ];
        let b1 = stored("b-1", 1, 2);
        let new = || (e1.0.clone(), None);
        check(vec![new()], "New");
        check(vec![e1.clone(), e2.clone()], "Repeated");
        check(vec![e1.clone(), b1.clone(), e2.clone()], "Repeated");
        check(vec![e2.clone(), e1.clone()], "OtherOrder");
        check(vec![e1.clone(), e3.clone()], "OtherOrder");
        check(
            vec![e1.clone(), e2.clone(), new()],
            "PartlyKnown { first_unknown: 2 }",
        );
        check(vec![new(), e1.clone()], "PartlyKnown { first_unknown: 0 }");
        let mut elsewhere = e1.clone();
        elsewhere.0.0 = StreamId::new("b-1").unwrap();
        check(vec![elsewhere], "OtherStream");
        let mut changed = e1;
        changed.0.1.payload = b"other".as_slice().into();
        check(vec![changed], "OtherContent");
    }

    #[test]
    fn a_repetition_over_many_streams_compares_each_once() {
        let of = |n: u64| stored(&format!("a-{}", n % 150_000), n / 150_000 + 1, n + 1).1;
        let mut known: Vec<_> = (0..300_000).map(of).collect();
        let (answer, answered) = mpsc::channel();
        std::thread::spawn(move || {
            let is_in_order = in_order(&known);
            known.swap(149_999, 150_000);
            let _ = answer.send((is_in_order, in_order(&known)));
        });
        assert_eq!(answered.recv_timeout(FOR_EVER), Ok((true, false)));
    }

    #[test]
    fn a_derived_id_identifies_its_request() {
        let mut done = stored("a-1", 4, 9);
        done.0.1.id = EventId::derived(&done.0.0, "req", 0);
        done.0.1.payload = b"decided otherwise".as_slice().into();
        let mut more = (done.0.clone(), None);
        more.0.1.id = EventId::derived(&done.0.0, "req", 1);
        check(
            vec![done, more],
            "RequestDone { first: Position(9), events: 1 }",
        );
    }

    #[test]
    fn a_new_event_beside_a_known_request_is_half_known() {
        let mut done = stored("a-1", 4, 9);
        done.0.1.id = EventId::derived(&done.0.0, "req", 0);
        let new = (stored("a-1", 5, 10).0, None);
        check(
            vec![new.clone(), done.clone()],
            "PartlyKnown { first_unknown: 0 }",
        );
        check(vec![done.clone(), new], "PartlyKnown { first_unknown: 1 }");
        let mut other = stored("a-1", 6, 12);
        other.0.1.id = EventId::derived(&other.0.0, "other", 0);
        other.1.as_mut().unwrap().found.append_first = Position::new(12);
        done.1.as_mut().unwrap().found.append_first = Position::new(9);
        check(vec![done, other], "OtherOrder");
    }
}
