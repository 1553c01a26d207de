//! The bids, the same for every engine, and what is compared of the answers.

use std::fmt;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// How late bids may be, in milliseconds.
pub(crate) const DELAY_MS: u64 = 3_000;
pub(crate) const SIZE_MS: u64 = 10_000;
pub(crate) const SLIDE_MS: u64 = 2_000;

/// A generator of pseudo-random numbers of 31 bits.
pub(crate) struct Bids {
    state: u64,
    next: u64,
}

impl Bids {
    pub(crate) fn new() -> Bids {
        Bids { state: 42, next: 0 }
    }

    fn draw(&mut self) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.state >> 33
    }

    /// The next bid.
    pub(crate) fn bid(&mut self) -> Bid {
        let hot = self.draw();
        let auction = self.draw();
        let bidder = self.draw();
        let price = self.draw();
        let late = self.draw();
        let number = self.next;
        self.next += 1;
        Bid {
            auction: if hot < 1 << 30 {
                auction % 10
            } else {
                auction % 1_000
            },
            bidder: bidder % 10_000,
            price: price % 100_000,
            ts: 1_700_000_000_000 + number as i64 * 10 - (late % 3_001) as i64,
            number,
        }
    }
}

/// A bid as it is read back.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Bid {
    pub(crate) auction: u64,
    pub(crate) bidder: u64,
    #[allow(dead_code, reason = "part of what is decoded")]
    pub(crate) price: u64,
    pub(crate) ts: i64,
    /// Which one it is, from 0.
    #[serde(skip)]
    pub(crate) number: u64,
}

impl Bid {
    /// As JSON of some 136 bytes.
    pub(crate) fn json(&self) -> String {
        let Bid {
            auction,
            bidder,
            price,
            ts,
            ..
        } = self;
        let mut text = String::with_capacity(144);
        let _ = write!(
            text,
            "{{\"auction\":{auction},\"bidder\":{bidder},\"price\":{price},\"ts\":{ts},\"extra\":\""
        );
        text.extend(std::iter::repeat_n('x', 64));
        text.push_str("\"}");
        text
    }
}

/// Rows, the sum of their counts, and the sum of their squares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) rows: u64,
    pub(crate) sum: u64,
    pub(crate) squares: u64,
}

impl Answer {
    pub(crate) fn add(&mut self, count: u64) {
        self.rows += 1;
        self.sum += count;
        self.squares += count * count;
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer { rows, sum, squares } = self;
        write!(f, "{rows} rows, sum {sum}, sum of squares {squares}")
    }
}

/// Seconds of CPU of this process.
pub(crate) fn cpu_seconds() -> f64 {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return 0.0;
    };
    let fields: Vec<&str> = match stat.rsplit_once(')') {
        Some((_, rest)) => rest.split_whitespace().collect(),
        None => Vec::new(),
    };
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}

/// The most memory that this process has had, in MiB.
pub(crate) fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0_u64) / 1_024
}
