//! The queue of a key, folded onto its row.

use annals_core::{DeadLetter, History, Position, RowVersion, Version};
use bytes::Bytes;

use super::cache::Rows;
use super::changes::Changes;
use super::row::RowError;
use crate::view::step::Step;
use crate::view::{Poison, View};

/// An event of a key's queue, and what it does to the row; why not, when it still cannot be folded.
pub(crate) struct Waiting<V: View> {
    pub(crate) letter: DeadLetter,
    pub(crate) steps: Result<Vec<Step<V>>, Poison>,
}

/// What draining a queue changes.
#[derive(Debug)]
pub(crate) struct DrainedKey {
    pub(crate) changes: Changes,
    pub(crate) settled_letters: Vec<(String, Position)>,
    /// The first dead letter of the key now.
    pub(crate) still: Option<DeadLetter>,
}

/// Folds the queue of a key onto its row, in order, up to the first event that cannot be folded.
/// What is kept of the past is at the positions of the events themselves.
pub(crate) fn drained<V: View>(
    key: &str,
    stored: Option<Bytes>,
    stream_version: Option<Version>,
    queue: Vec<Waiting<V>>,
) -> Result<DrainedKey, RowError> {
    let mut rows = Rows::<V>::keeping(1).inline(stream_version.is_some());
    let mut before = stored.clone();
    let version = stream_version.unwrap_or(Version::NONE);
    rows.learn_lenient(key.into(), stored, version);
    let mut version_before = rows.version(key);
    let mut drained = DrainedKey {
        changes: rows.batch(),
        settled_letters: Vec::new(),
        still: None,
    };
    for Waiting { letter, steps } in queue {
        let folded = steps.and_then(|mut steps| {
            steps.retain(|step| !rows.has_already(key, step.record().version));
            for step in &steps {
                rows.apply(key, step)?;
                rows.check(key)?;
            }
            Ok(steps.first().map(|step| step.record().recorded_at))
        });
        match folded {
            Ok(recorded_at) => {
                if let Some(recorded_at) = recorded_at {
                    before = rows.encoded(key)?;
                    version_before = rows.version(key);
                    let at = letter.position;
                    let value = before.clone();
                    if V::HISTORY != History::None {
                        let version = RowVersion {
                            key: key.into(),
                            after: at.minus(1),
                            up_to: at,
                            recorded_at,
                            value,
                        };
                        drained.changes.versions.push(version);
                    }
                    if V::HISTORY == History::Bitemporal {
                        drained.changes.touched.push((key.into(), at));
                    }
                }
                drained.settled_letters.push((letter.key, letter.position));
            }
            Err(poison) => {
                rows.set(key, before.as_ref(), version_before);
                drained.still = Some(DeadLetter {
                    reason: Some(DeadLetter::recorded(poison.reason())),
                    attempts: letter.attempts + 1,
                    ..letter
                });
                break;
            }
        }
    }
    rows.keep_row(key, &mut drained.changes)?;
    Ok(drained)
}
