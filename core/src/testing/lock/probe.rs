//! What today's code makes of a stored sample that is changed a little: how a program shows the
//! shapes of nested types, which the source text of an event does not hold.
//!
//! Each fact is about one path of a JSON sample:
//!
//! ```text
//! inside .at takes -9223372036854775808..9223372036854775807
//! inside .kind of Gift | Sold
//! inside .price.currency absent "EUR"
//! inside .price unknown ignored
//! ```

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Map, Value};

use super::file::Sample;
use crate::codec::{Codec, Json};

/// By path and kind, the rest of the line.
pub(super) type Facts = BTreeMap<(String, Kind), String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The integers that are accepted there, or `fractions`.
    Takes,
    /// The variants that are known there.
    Of,
    /// What a missing value becomes.
    Absent,
    /// Whether fields that are not known are ignored.
    Unknown,
}

const KINDS: [(Kind, &str); 4] = [
    (Kind::Takes, "takes"),
    (Kind::Of, "of"),
    (Kind::Absent, "absent"),
    (Kind::Unknown, "unknown"),
];

impl Kind {
    pub(super) fn word(self) -> &'static str {
        KINDS
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("", |(_, word)| word)
    }

    pub(super) fn of_word(word: &str) -> Option<Kind> {
        let (kind, _) = KINDS.iter().find(|(_, known)| *known == word)?;
        Some(*kind)
    }
}

/// Bounds one of which every integer type has.
const LOWER: [i64; 5] = [
    i64::MIN,
    i32::MIN as i64,
    i16::MIN as i64,
    i8::MIN as i64,
    0,
];
const UPPER: [u64; 8] = [
    u64::MAX,
    i64::MAX as u64,
    u32::MAX as u64,
    i32::MAX as u64,
    u16::MAX as u64,
    i16::MAX as u64,
    u8::MAX as u64,
    i8::MAX as u64,
];

/// A word that no program has as a name.
const STRANGE: &str = "annals\u{b7}probe";

/// How many changed samples are tried at most for one sample.
const TRIES_MAX: usize = 4_000;

/// Reads a stored sample and writes it again.
pub(super) type Again = fn(&Sample) -> Result<Vec<Sample>, String>;

/// What is found out with these samples; where two say something about one path, the first counts.
pub(super) fn facts(samples: &[Sample], again: Again) -> Facts {
    let mut facts = Facts::new();
    for sample in samples.iter().filter(|sample| sample.codec == Json::NAME) {
        let Ok(whole) = serde_json::from_slice::<Value>(&sample.payload) else {
            continue;
        };
        let mut probe = Probe {
            sample,
            again,
            whole,
            facts: Facts::new(),
            tries: 0,
        };
        probe.look_at(&mut Vec::new());
        for (about, fact) in probe.facts {
            facts.entry(about).or_insert(fact);
        }
    }
    facts
}

/// Whether everything that was accepted still is. Of a shape that is not `current` neither numbers
/// count, because its upcasters calculate and were never given the largest ones, nor what missing
/// values become, because it has another form today.
pub(super) fn still(kind: Kind, was: &str, is: Option<&str>, current: bool) -> bool {
    if kind == Kind::Takes && !current {
        return true;
    }
    let Some(is) = is else {
        return false;
    };
    let names = |text: &str| -> Vec<String> { text.split(" | ").map(str::to_owned).collect() };
    match kind {
        _ if was == is => true,
        Kind::Takes => match (range(was), range(is)) {
            (Some(was), Some(is)) => is.0 <= was.0 && was.1 <= is.1,
            (Some(_), None) => true,
            (None, _) => false,
        },
        Kind::Of => names(was).iter().all(|name| names(is).contains(name)),
        Kind::Absent => !current,
        Kind::Unknown => false,
    }
}

/// The bounds, or nothing where fractions are accepted too.
fn range(text: &str) -> Option<(i128, i128)> {
    let (from, to) = text.split_once("..")?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// One step into a value.
#[derive(Clone, Debug)]
enum Step {
    Key(String),
    First,
}

struct Probe<'a> {
    sample: &'a Sample,
    again: Again,
    whole: Value,
    facts: Facts,
    tries: usize,
}

impl Probe<'_> {
    fn look_at(&mut self, path: &mut Vec<Step>) {
        let mut whole = self.whole.clone();
        let Some(here) = at(&mut whole, path) else {
            return;
        };
        match here.clone() {
            Value::Number(number) => self.number(path, &number),
            Value::String(_) => self.variants(path, Value::from(STRANGE)),
            Value::Array(values) if !values.is_empty() => {
                path.push(Step::First);
                self.look_at(path);
                path.pop();
            }
            Value::Object(fields) => self.object(path, &fields),
            _ => {}
        }
    }

    fn object(&mut self, path: &mut Vec<Step>, fields: &Map<String, Value>) {
        if let Some(value) = fields.values().next().filter(|_| fields.len() == 1) {
            let renamed = Map::from_iter([(STRANGE.to_owned(), value.clone())]);
            self.variants(path, Value::Object(renamed));
        }
        let mut more = fields.clone();
        more.insert(STRANGE.to_owned(), Value::Null);
        if self.with(path, Value::Object(more)).is_ok() {
            self.note(path, Kind::Unknown, "ignored".to_owned());
        }
        for key in fields.keys() {
            let mut fewer = fields.clone();
            fewer.remove(key);
            let read = self.with(path, Value::Object(fewer));
            path.push(Step::Key(key.clone()));
            if let Ok(written) = read {
                let becomes = match written.as_slice() {
                    [one] => serde_json::from_slice::<Value>(&one.payload).ok(),
                    _ => None,
                };
                let becomes = becomes.and_then(|mut whole| at(&mut whole, path).cloned());
                let becomes = becomes.map_or("nothing".to_owned(), |value| value.to_string());
                self.note(path, Kind::Absent, becomes);
            }
            self.look_at(path);
            path.pop();
        }
    }

    fn number(&mut self, path: &[Step], number: &serde_json::Number) {
        if self.with(path, Value::from(0.5)).is_ok() {
            return self.note(path, Kind::Takes, "fractions".to_owned());
        }
        let mut lowest = None;
        for bound in LOWER {
            if self.with(path, Value::from(bound)).is_ok() {
                lowest = Some(bound.to_string());
                break;
            }
        }
        let mut highest = None;
        for bound in UPPER {
            if self.with(path, Value::from(bound)).is_ok() {
                highest = Some(bound.to_string());
                break;
            }
        }
        let own = || number.to_string();
        let lowest = lowest.unwrap_or_else(own);
        let highest = highest.unwrap_or_else(own);
        self.note(path, Kind::Takes, format!("{lowest}..{highest}"));
    }

    /// The variants that serde names when it is given one that there is not.
    fn variants(&mut self, path: &[Step], strange: Value) {
        let Err(why) = self.with(path, strange) else {
            return;
        };
        let named = format!("unknown variant `{STRANGE}`, expected ");
        let Some((_, expected)) = why.split_once(&named) else {
            return;
        };
        let mut names: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        names.sort_unstable();
        if !names.is_empty() {
            self.note(path, Kind::Of, names.join(" | "));
        }
    }

    /// The sample with another value at the path, read and written again.
    fn with(&mut self, path: &[Step], value: Value) -> Result<Vec<Sample>, String> {
        self.tries += 1;
        if self.tries > TRIES_MAX {
            return Err("too large to be looked at".to_owned());
        }
        let mut whole = self.whole.clone();
        if let Some(here) = at(&mut whole, path) {
            *here = value;
        }
        let sample = Sample {
            payload: whole.to_string().into_bytes(),
            ..self.sample.clone()
        };
        // Code that was never given such a value may panic at it, which refuses it too.
        catch_unwind(AssertUnwindSafe(|| (self.again)(&sample)))
            .unwrap_or_else(|_| Err("a panic".to_owned()))
    }

    fn note(&mut self, path: &[Step], kind: Kind, fact: String) {
        self.facts.entry((shown(path), kind)).or_insert(fact);
    }
}

fn at<'v>(value: &'v mut Value, path: &[Step]) -> Option<&'v mut Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.as_object_mut()?.get_mut(key),
        Step::First => value.as_array_mut()?.first_mut(),
    })
}

/// `.price.cents`, `.lines[].sku`; a key that is no word is quoted.
fn shown(path: &[Step]) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    let step = |step: &Step| match step {
        Step::First => "[]".to_owned(),
        Step::Key(key)
            if !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_') =>
        {
            format!(".{key}")
        }
        Step::Key(key) => format!(".{}", Value::from(key.as_str())).replace(' ', "\\u0020"),
    };
    path.iter().map(step).collect()
}
