//! The keys that come most often, counted by samples of pages in bounded memory.

use std::collections::HashMap;

use annals_runner::{HotKey, contained};

use super::dead::shown;
use super::divide::DividedRows;

/// Rows of a page whose keys are looked at.
const SAMPLES: usize = 64;
/// Keys that are counted at once.
const COUNTED: usize = 512;
/// Keys that are told of.
const TOLD: usize = 10;
/// After so many rows what came before counts half.
const FADES_AFTER: u64 = 200_000;

/// How often keys came lately.
#[derive(Debug, Default)]
pub(crate) struct HotKeys {
    counts: HashMap<String, u64>,
    rows: u64,
    /// What was told last, and how many rows came since.
    told: Vec<HotKey>,
    since: u64,
}

impl HotKeys {
    /// Takes in the rows of a page.
    pub(crate) fn count(&mut self, rows: &dyn DividedRows) {
        let mut sampled = Vec::new();
        // It is no harm when a key cannot be told: the stage that needs it says so.
        let _ = contained(|| rows.sample(SAMPLES, &mut |key, rows| sampled.push((key, rows))));
        for (key, rows) in sampled {
            self.add(key, rows);
        }
    }

    fn add(&mut self, key: String, rows: u64) {
        self.rows += rows;
        self.since += rows;
        *self.counts.entry(key).or_default() += rows;
        if self.rows >= FADES_AFTER {
            self.rows /= 2;
            self.counts.values_mut().for_each(|count| *count /= 2);
            self.counts.retain(|_, count| *count > 0);
        }
        if self.counts.len() > COUNTED {
            let mut counts: Vec<u64> = self.counts.values().copied().collect();
            counts.sort_unstable();
            let median = counts[counts.len() / 2];
            let mut room = COUNTED / 2;
            self.counts.retain(|_, count| {
                let stays = *count > median || *count == median && room > 0;
                room -= usize::from(*count == median && stays);
                stays
            });
        }
    }

    /// The busiest keys, the busiest first.
    pub(crate) fn told(&mut self) -> Vec<HotKey> {
        // They are asked for with each commit: a few rows more tell nothing new.
        if self.since > self.rows / 16 {
            self.since = 0;
            self.told = self.busiest();
        }
        self.told.clone()
    }

    fn busiest(&self) -> Vec<HotKey> {
        let mut all: Vec<_> = self.counts.iter().collect();
        all.sort_unstable_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
        let percent = |count: u64| (100 * count / self.rows.max(1)).min(100) as u8;
        let told = all.into_iter().take(TOLD).map(|(key, count)| HotKey {
            key: shown(key),
            percent: percent(*count),
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_key_is_told_first_in_bounded_memory() {
        let mut hot = HotKeys::default();
        for number in 0..300_000_u64 {
            let key = match number % 4 {
                0 => "tea".to_owned(),
                _ => format!("rare-{}", number.wrapping_mul(2_654_435_761) % 100_000),
            };
            hot.add(key, 1);
        }
        assert!(hot.counts.len() <= COUNTED);
        let told = hot.told();
        assert_eq!(told.len(), TOLD);
        assert_eq!(told[0].key, "tea");
        assert!((23..=27).contains(&told[0].percent), "{told:?}");
        assert!(told[1].percent < 2, "{told:?}");
    }
}
