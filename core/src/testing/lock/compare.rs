//! The program beside the file: what has changed, what is missing, and the file as it would be.

use std::collections::BTreeMap;
use std::fmt;

use super::file::{Fold as PinnedFold, Lock, Sample, Shape as Pinned};
use super::growth::{has_grown, holds, is_same, is_same_value};
use super::probe::{self, Facts};
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
    /// With `rewrite`, the program wins wherever the file differs.
    pub(super) fn compare(&self, file: &Lock, rewrite: bool) -> Compared {
        let mut compared = Compared {
            changed: self.faults.clone(),
            missing: Vec::new(),
            updated: Lock::default(),
        };
        for ((event_type, version), pinned) in &file.events {
            let kept = if rewrite {
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
            if !rewrite {
                compared
                    .changed
                    .extend(self.look_at(event_type, *version, pinned));
            }
        }
        compared.changed.extend(self.written_twice());
        let events_hold = compared.changed.is_empty();
        for (known, shape) in self.current() {
            compared.add_shape(known, shape, rewrite);
        }
        self.add_readings(&mut compared, rewrite);
        if !events_hold {
            // Changed shapes write other samples and fold to other states: that follows, and would
            // only bury the reason.
            compared.missing.clear();
            return compared;
        }
        for fold in &self.folds {
            compared.add_fold(self, fold, file.folds.get(&fold.name), rewrite);
        }
        let lost = file
            .folds
            .iter()
            .filter(|(name, _)| !self.folds.iter().any(|fold| fold.name == **name));
        if !rewrite {
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

    /// Names and versions that two types write.
    fn written_twice(&self) -> Vec<String> {
        let mut writers: BTreeMap<(&str, u32), &Type> = BTreeMap::new();
        let mut twice = Vec::new();
        for (known, shape) in self.current() {
            let key = (shape.event_type, shape.schema_version);
            match writers.get(&key) {
                Some(first) if first.id != known.id => {
                    twice.push(drift::two_writers(key.0, key.1, first.name, known.name));
                }
                Some(_) => {}
                None => {
                    writers.insert(key, known);
                }
            }
        }
        twice
    }

    /// Pins what becomes of the samples of old versions.
    fn add_readings(&self, compared: &mut Compared, rewrite: bool) {
        for ((event_type, version), pinned) in &mut compared.updated.events {
            let Some((known, shape)) = self.reader(event_type, *version) else {
                continue;
            };
            if shape.current {
                continue;
            }
            if rewrite {
                pinned.becomes.clear();
            }
            let mut is_new = false;
            for (index, sample) in pinned.samples.iter().enumerate() {
                if let Ok(events) = (known.again)(sample)
                    && !pinned.becomes.contains_key(&index)
                {
                    let events = events.iter().map(Sample::untagged).collect();
                    pinned.becomes.insert(index, events);
                    is_new = true;
                }
            }
            if is_new {
                compared
                    .missing
                    .push(drift::new_reading(event_type, *version));
            }
        }
    }

    /// What an old sample is today, and what the events are today that it was when it was pinned.
    fn readings(&self, known: &Type, sample: &Sample, became: &[Sample]) -> Option<(Shown, Shown)> {
        let is = (known.again)(sample).ok()?;
        let mut was = Vec::new();
        for event in became {
            let (reader, _) = self.reader(&event.event_type, event.schema_version)?;
            was.extend((reader.again)(event).ok()?);
        }
        Some((Shown(was), Shown(is)))
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
        let has_category = |known: &Type| known.category == pinned.category;
        let is_pinned = !pinned.category.is_empty();
        if is_pinned && !self.types.iter().any(has_category) {
            let is: Vec<&str> = self.types.iter().map(|known| known.category).collect();
            return Some(drift::category(event_type, version, &pinned.category, &is));
        }
        let Some((known, shape)) = self.reader(event_type, version) else {
            return Some(drift::unread(event_type, version));
        };
        if shape.current && is_pinned && !has_category(known) {
            let is = [known.category];
            return Some(drift::category(event_type, version, &pinned.category, &is));
        }
        let was = pinned.fields();
        let is = shape.fields;
        if shape.current && !has_grown(was, is) {
            return Some(drift::shape(
                event_type,
                version,
                "has other fields",
                was,
                is,
            ));
        }
        let of_samples = pinned
            .samples
            .iter()
            .enumerate()
            .find_map(|(index, sample)| {
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
                    Ok(_) if !shape.current => {
                        let became = pinned.becomes.get(&index)?;
                        let (was, is) = self.readings(known, sample, became)?;
                        (was != is).then(|| {
                            drift::reading(
                                event_type,
                                version,
                                &content,
                                &was.to_string(),
                                &is.to_string(),
                            )
                        })
                    }
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
            });
        of_samples
            .or_else(|| changed_inside(event_type, version, pinned, known, shape.current))
            .or_else(|| known.rewritten(event_type, version, pinned, shape.current))
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
            ..Pinned::default()
        })
    }
}

impl Type {
    /// A pinned sample that no value of the test is written as any more, while one is written as
    /// something new: perhaps the same value.
    fn rewritten(
        &self,
        event_type: &str,
        version: u32,
        pinned: &Pinned,
        current: bool,
    ) -> Option<String> {
        let key = (event_type.to_owned(), version);
        let of_test: Vec<&Sample> = self
            .samples
            .iter()
            .filter(|sample| current && sample.key() == key)
            .collect();
        let new = of_test
            .iter()
            .find(|is| !pinned.samples.iter().any(|was| still_holds(is, was)))?;
        let lost = pinned
            .samples
            .iter()
            .find(|was| !of_test.iter().any(|is| still_holds(is, was)))?;
        Some(drift::rewritten(
            event_type,
            version,
            &lost.content(),
            &new.content(),
        ))
    }
}

/// What code that reads nested types accepts less than it did, or fills in otherwise.
fn changed_inside(
    event_type: &str,
    version: u32,
    pinned: &Pinned,
    known: &Type,
    current: bool,
) -> Option<String> {
    if pinned.inside.is_empty() {
        return None;
    }
    let is = probe::facts(&pinned.samples, known.again);
    pinned.inside.iter().find_map(|(about, was)| {
        let (path, kind) = about;
        let is = is.get(about).map(String::as_str);
        (!probe::still(*kind, was, is, current))
            .then(|| drift::inside(event_type, version, path, *kind, was, is))
    })
}

/// Events as today's code writes them.
struct Shown(Vec<Sample>);

impl PartialEq for Shown {
    fn eq(&self, other: &Shown) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .zip(&other.0)
                .all(|(one, other)| is_alike(&one.untagged(), &other.untagged()))
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        let events: Vec<String> = self.0.iter().map(Sample::named_content).collect();
        f.write_str(&events.join(", "))
    }
}

impl Compared {
    fn add_shape(&mut self, known: &Type, shape: &Shape, rewrite: bool) {
        let event_type = shape.event_type;
        let version = shape.schema_version;
        let key = (event_type.to_owned(), version);
        let samples = known.samples.iter().filter(|sample| sample.key() == key);
        let Some(pinned) = self.updated.events.get_mut(&key) else {
            let mut pinned = Pinned {
                category: known.category.to_owned(),
                ..Pinned::default()
            };
            pinned.grow(shape.fields);
            add(&mut pinned.samples, samples);
            if pinned.samples.is_empty() {
                self.changed.push(drift::no_sample(event_type, version));
            }
            pinned.inside = probe::facts(&pinned.samples, known.again);
            self.updated.events.insert(key, pinned);
            self.missing.push(drift::new_shape(event_type, version));
            return;
        };
        if pinned.category.is_empty() || rewrite {
            known.category.clone_into(&mut pinned.category);
            self.missing.push(drift::new_category(event_type, version));
        }
        if !is_same(pinned.fields(), shape.fields) {
            if rewrite {
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
        let inside: Facts = probe::facts(&pinned.samples, known.again);
        if inside != pinned.inside {
            if new.is_empty() {
                self.missing.push(drift::grown_inside(event_type, version));
            }
            pinned.inside = inside;
        }
    }

    fn add_fold(
        &mut self,
        lock: &EventsLock,
        fold: &Fold,
        pinned: Option<&PinnedFold>,
        rewrite: bool,
    ) {
        let name = fold.name.as_str();
        let version = fold.version;
        let mut over = pinned.map_or(Vec::new(), |pinned| pinned.over.clone());
        if rewrite {
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
        match pinned.filter(|_| !rewrite) {
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
            // Said already when it is the pinned history that cannot be folded.
            Err(why) if self.changed.is_empty() => {
                self.changed.push(drift::broken_fold(name, version, &why))
            }
            Err(_) => {}
        }
    }
}

/// Whether both are the same event; in JSON fields have no order.
fn is_alike(one: &Sample, other: &Sample) -> bool {
    one.key() == other.key()
        && one.codec == other.codec
        && one.tags == other.tags
        && is_same_value(&one.payload, &other.payload, one.codec == Json::NAME)
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
        if !there.iter().any(|known| is_alike(known, sample)) {
            there.push(sample.clone());
            new.push(sample.clone());
        }
    }
    new
}
