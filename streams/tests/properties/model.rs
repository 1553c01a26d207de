//! Plain models of windows: they remember everything and look through all of it.

use annals_streams::{Emit, Kind};
use std::collections::BTreeSet;

/// A record: key, time, number.
pub(crate) type Record = (u8, i64, u32);

/// What a result is: its time, key, window, kind, numbers and largest time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) last: i64,
    pub(crate) window: (i64, i64),
    pub(crate) key: u8,
    pub(crate) kind: &'static str,
    pub(crate) value: Option<Vec<u32>>,
    pub(crate) max_time: i64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    Hopping { size: i64, slide: i64, offset: i64 },
    Session { gap: i64 },
    Sliding { span: i64 },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) shape: Shape,
    pub(crate) emit: Emit,
    pub(crate) lateness: i64,
    /// Numbers in the order of arrival, or sorted.
    pub(crate) in_order: bool,
}

pub(crate) struct Model {
    rules: Rules,
    watermark: i64,
    /// All that were taken, in the order of arrival.
    records: Vec<Record>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) late: Vec<(u32, bool, usize)>,
}

pub(crate) fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Update => "update",
        Kind::Final => "final",
        Kind::Correction => "correction",
        Kind::Retraction => "retraction",
    }
}

/// A window of a key with its last moment.
type Found = (i64, (i64, i64), u8);

impl Model {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            watermark: i64::MIN,
            records: vec![],
            seen: vec![],
            late: vec![],
        }
    }

    fn is_late(&self, last: i64) -> bool {
        self.watermark >= last.saturating_add(self.rules.lateness)
    }

    /// All windows there are, by what was taken.
    fn windows(&self, records: &[Record]) -> BTreeSet<Found> {
        let mut found = BTreeSet::new();
        match self.rules.shape {
            Shape::Hopping { .. } => {
                for (key, time, _) in records {
                    found.extend(self.hops(*key, *time));
                }
            }
            Shape::Session { gap } => {
                for key in 0..3 {
                    let mut times: Vec<i64> =
                        records.iter().filter(|r| r.0 == key).map(|r| r.1).collect();
                    times.sort();
                    for run in times.chunk_by(|one, next| next - one <= gap) {
                        let end = run[run.len() - 1];
                        found.insert((end + gap, (run[0], end), key));
                    }
                }
            }
            Shape::Sliding { span } => {
                for (key, time, _) in records {
                    found.insert((*time, (time - span, *time), *key));
                    let right = (time + 1, time + 1 + span);
                    let holds = |r: &Record| r.0 == *key && right.0 <= r.1 && r.1 <= right.1;
                    if records.iter().any(holds) {
                        found.insert((right.1, right, *key));
                    }
                }
            }
        }
        found
    }

    fn hops(&self, key: u8, time: i64) -> Vec<Found> {
        let Shape::Hopping {
            size,
            slide,
            offset,
        } = self.rules.shape
        else {
            return vec![];
        };
        let starts = (time - size + 1)..=time;
        let starts = starts.filter(|start| (start - offset).rem_euclid(slide) == 0);
        starts
            .map(|start| (start + size - 1, (start, start + size), key))
            .collect()
    }

    fn holds(&self, window: (i64, i64), time: i64) -> bool {
        let half_open = matches!(self.rules.shape, Shape::Hopping { .. });
        window.0 <= time && (time < window.1 || (time == window.1 && !half_open))
    }

    fn result(&self, found: &Found, kind: &'static str) -> Seen {
        let (last, window, key) = *found;
        let inside = self
            .records
            .iter()
            .filter(|r| r.0 == key && self.holds(window, r.1));
        let mut value: Vec<u32> = inside.clone().map(|r| r.2).collect();
        if !self.rules.in_order {
            value.sort();
        }
        let max_time = inside.map(|r| r.1).max().unwrap_or(window.1);
        let value = (kind != "retraction").then_some(value);
        Seen {
            last,
            window,
            key,
            kind,
            value,
            max_time,
        }
    }

    pub(crate) fn advance(&mut self, watermark: i64) {
        let before = self.watermark;
        self.watermark = before.max(watermark);
        if self.rules.emit.on_close() {
            for found in self.windows(&self.records) {
                if before < found.0 && found.0 <= self.watermark {
                    self.seen.push(self.result(&found, "final"));
                }
            }
        }
        // A session that is past its lateness merges with nothing.
        if matches!(self.rules.shape, Shape::Session { .. }) {
            let gone: Vec<Found> = self
                .windows(&self.records)
                .into_iter()
                .filter(|f| self.is_late(f.0))
                .collect();
            let kept = |r: &Record| !gone.iter().any(|f| f.2 == r.0 && self.holds(f.1, r.1));
            self.records = self.records.iter().filter(|r| kept(r)).copied().collect();
        }
    }

    pub(crate) fn put(&mut self, record: Record) {
        let (key, time, number) = record;
        let before = self.windows(&self.records);
        let mut records = self.records.clone();
        records.push(record);
        let after = self.windows(&records);
        let mine: Vec<Found> = match self.rules.shape {
            Shape::Hopping { .. } => self.hops(key, time),
            _ => after
                .iter()
                .filter(|f| f.2 == key && self.holds(f.1, time))
                .copied()
                .collect(),
        };
        let missed = mine.iter().filter(|f| self.is_late(f.0)).count();
        let refused = match self.rules.shape {
            Shape::Sliding { span } => self.is_late(time + span),
            _ => missed == mine.len() && missed > 0,
        };
        if refused {
            let missed = if matches!(self.rules.shape, Shape::Sliding { .. }) {
                1
            } else {
                missed
            };
            self.late.push((number, false, missed));
            return;
        }
        if missed > 0 {
            self.late.push((number, true, missed));
        }
        self.records = records;
        let updates = self.rules.emit.on_update();
        for found in before.difference(&after) {
            if updates || self.watermark >= found.0 {
                let mut seen = self.result(found, "retraction");
                seen.max_time = found.1.1;
                self.seen.push(seen);
            }
        }
        for found in after {
            let touched = found.2 == key
                && (self.holds(found.1, time) || !before.contains(&found))
                && !self.is_late(found.0);
            let closed = self.watermark >= found.0;
            if touched && (closed || updates) {
                let kind = if closed { "correction" } else { "update" };
                self.seen.push(self.result(&found, kind));
            }
        }
    }
}
