//! The program beside the file: what has changed, what is missing, and the file as it would be.

use super::file::{Fold as PinnedFold, Lock, Sample, Shape as Pinned};
use super::growth::{has_grown, holds};
use super::{EventsLock, Fold, Type, drift};
use crate::codec::{Codec, Json};
use crate::typed::Shape;

/// What came of it.
pub(super) struct Compared {
    /// What no update may settle.
    pub(super) changed: Vec<String>,
    /// What an update adds.
    pub(super) missing: Vec<String>,
    pub(super) updated: Lock,
}

impl EventsLock {
    /// With `anew`, the file yields wherever it differs.
    pub(super) fn compare(&self, file: &Lock, anew: bool) -> Compared {
        let mut compared = Compared {
            changed: self.faults.clone(),
            missing: Vec::new(),
            updated: Lock::default(),
        };
        for ((event_type, version), pinned) in &file.events {
            let kept = if anew {
                self.still_true(event_type, *version, pinned)
            } else {
                Some(pinned.clone())
            };
            if let Some(kept) = kept {
                compared
                    .updated
                    .events
                    .insert((event_type.clone(), *version), kept);
            }
            if !anew {
                compared
                    .changed
                    .extend(self.look_at(event_type, *version, pinned));
            }
        }
        let events_hold = compared.changed.is_empty();
        for (known, shape) in self.current() {
            compared.add_shape(known, shape, anew);
        }
        if !events_hold {
            // Changed shapes write other samples and fold to other states: that follows, and would
            // only bury the reason.
            compared.missing.clear();
            return compared;
        }
        for fold in &self.folds {
            compared.add_fold(self, fold, file.folds.get(&fold.name), anew);
        }
        let lost = file
            .folds
            .iter()
            .filter(|(name, _)| !self.folds.iter().any(|fold| fold.name == **name));
        if !anew {
            compared
                .changed
                .extend(lost.map(|(name, fold)| drift::lost_fold(name, fold.version)));
        }
        compared
    }

    fn current(&self) -> impl Iterator<Item = (&Type, &'static Shape)> {
        let shapes = |known: &Type| known.shapes.iter().filter(|shape| shape.current);
        self.types
            .iter()
            .flat_map(move |known| shapes(known).map(move |shape| (known, shape)))
    }

    /// Who reads a stored shape; who writes it comes first.
    fn reader(&self, event_type: &str, version: u32) -> Option<(&Type, &'static Shape)> {
        let is_it =
            |shape: &Shape| shape.event_type == event_type && shape.schema_version == version;
        let mut old = self
            .types
            .iter()
            .flat_map(|known| known.shapes.iter().map(move |shape| (known, shape)));
        self.current()
            .find(|(_, shape)| is_it(shape))
            .or_else(|| old.find(|(_, shape)| is_it(shape)))
    }

    /// How an entry of the file differs from the program.
    fn look_at(&self, event_type: &str, version: u32, pinned: &Pinned) -> Option<String> {
        let Some((known, shape)) = self.reader(event_type, version) else {
            return Some(drift::unread(event_type, version));
        };
        let was = pinned.fields();
        let is = shape.fields;
        if shape.current && was != is && !has_grown(was, is) {
            return Some(drift::shape(
                event_type,
                version,
                "has other fields",
                was,
                is,
            ));
        }
        pinned.samples.iter().find_map(|sample| {
            let content = sample.content();
            match (known.again)(sample) {
                Err(why) if shape.current => {
                    let why = format!("an error: {why}");
                    Some(drift::shape(
                        event_type,
                        version,
                        "cannot read what it wrote",
                        &content,
                        &why,
                    ))
                }
                Err(why) => Some(drift::unreadable(event_type, version, &content, &why)),
                Ok(_) if !shape.current => None,
                Ok(again) => match again.as_slice() {
                    [again] if still_holds(again, sample) => None,
                    [again] if still_holds(&again.untagged(), &sample.untagged()) => {
                        let shown = |tags: &[String]| {
                            if tags.is_empty() {
                                "none".to_owned()
                            } else {
                                tags.join(", ")
                            }
                        };
                        let was = shown(&sample.tags);
                        let is = shown(&again.tags);
                        Some(drift::shape(
                            event_type,
                            version,
                            "carries other tags",
                            &was,
                            &is,
                        ))
                    }
                    again => {
                        let is = again
                            .iter()
                            .map(|again| format!("{} {}", again.codec, again.content()));
                        let is = is.collect::<Vec<_>>().join(", ");
                        let was = format!("{} {content}", sample.codec);
                        Some(drift::shape(
                            event_type,
                            version,
                            "is written in other bytes",
                            &was,
                            &is,
                        ))
                    }
                },
            }
        })
    }

    /// What of an entry can be read, and for a current shape is written the same way.
    fn still_true(&self, event_type: &str, version: u32, pinned: &Pinned) -> Option<Pinned> {
        let (known, shape) = self.reader(event_type, version)?;
        let is_true = |sample: &&Sample| match (known.again)(sample) {
            Ok(again) => {
                !shape.current || matches!(again.as_slice(), [again] if still_holds(again, sample))
            }
            Err(_) => false,
        };
        let samples: Vec<_> = pinned.samples.iter().filter(is_true).cloned().collect();
        (!samples.is_empty()).then(|| Pinned {
            fields: pinned.fields.clone(),
            samples,
        })
    }
}

impl Compared {
    fn add_shape(&mut self, known: &Type, shape: &Shape, anew: bool) {
        let event_type = shape.event_type;
        let version = shape.schema_version;
        let key = (event_type.to_owned(), version);
        let samples = known.samples.iter().filter(|sample| sample.key() == key);
        let Some(pinned) = self.updated.events.get_mut(&key) else {
            let mut pinned = Pinned::default();
            pinned.grow(shape.fields);
            add(&mut pinned.samples, samples);
            if pinned.samples.is_empty() {
                self.changed.push(drift::no_sample(event_type, version));
            }
            self.updated.events.insert(key, pinned);
            self.missing.push(drift::new_shape(event_type, version));
            return;
        };
        if pinned.fields() != shape.fields {
            if anew {
                pinned.fields.clear();
            }
            self.missing.push(drift::grown(
                event_type,
                version,
                pinned.fields(),
                shape.fields,
            ));
            pinned.grow(shape.fields);
        }
        let new = add(&mut pinned.samples, samples);
        self.missing.extend(
            new.iter()
                .map(|sample| drift::new_sample(event_type, version, &sample.content())),
        );
    }

    fn add_fold(
        &mut self,
        lock: &EventsLock,
        fold: &Fold,
        pinned: Option<&PinnedFold>,
        anew: bool,
    ) {
        let name = fold.name.as_str();
        let version = fold.version;
        let mut over = pinned.map_or(Vec::new(), |pinned| pinned.over.clone());
        if anew {
            let events = &self.updated.events;
            over.retain(|event| {
                events.get(&event.key()).is_some_and(|shape| {
                    shape
                        .samples
                        .iter()
                        .any(|sample| sample.untagged() == *event)
                })
            });
        }
        match pinned.filter(|_| !anew) {
            Some(pinned) if pinned.version == version => match (fold.state)(&pinned.over) {
                Ok(state) if state == pinned.state => {}
                Ok(state) => self
                    .changed
                    .push(drift::fold(name, version, &pinned.state, &state)),
                Err(why) => self.changed.push(drift::broken_fold(name, version, &why)),
            },
            Some(pinned) if pinned.version > version => {
                self.changed
                    .push(drift::older_fold(name, version, pinned.version));
            }
            _ => self.missing.push(drift::new_fold(name, version)),
        }
        let samples: Vec<_> = lock
            .types
            .iter()
            .filter(|known| known.id == fold.events)
            .flat_map(|known| known.samples.iter().map(Sample::untagged))
            .collect();
        if samples.is_empty() && over.is_empty() {
            self.changed.push(drift::broken_fold(
                name,
                version,
                "`EventsLock::events` was given none of its events",
            ));
            return;
        }
        let is_longer = !add(&mut over, samples.iter()).is_empty();
        if is_longer && pinned.is_some_and(|pinned| pinned.version == version) {
            self.missing.push(drift::longer_fold(name, version));
        }
        match (fold.state)(&over) {
            Ok(state) => {
                self.updated.folds.insert(
                    name.to_owned(),
                    PinnedFold {
                        version,
                        over,
                        state,
                    },
                );
            }
            // Said already when the pinned history is the trouble.
            Err(why) if self.changed.is_empty() => {
                self.changed.push(drift::broken_fold(name, version, &why))
            }
            Err(_) => {}
        }
    }
}

/// Whether a sample that was read and written again holds all that it held.
fn still_holds(again: &Sample, sample: &Sample) -> bool {
    let is_alike =
        again.key() == sample.key() && again.codec == sample.codec && again.tags == sample.tags;
    is_alike
        && (again.payload == sample.payload
            || (again.codec == Json::NAME && holds(&again.payload, &sample.payload)))
}

/// Adds those that are not there, and says which.
fn add<'a>(there: &mut Vec<Sample>, samples: impl Iterator<Item = &'a Sample>) -> Vec<Sample> {
    let mut new = Vec::new();
    for sample in samples {
        if !there.contains(sample) {
            there.push(sample.clone());
            new.push(sample.clone());
        }
    }
    new
}
