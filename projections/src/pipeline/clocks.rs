//! How far event time has come: one clock for each partition of the log, told from the records
//! alone, and one for each source that keeps its own.

use std::collections::BTreeMap;

use annals_core::Partition;
use annals_runner::Note;
use annals_streams::{Span, Time};

/// The clocks of all partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clocks {
    /// The number of the first one.
    first: u32,
    partitions: Vec<PartitionClock>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct PartitionClock {
    /// The largest time of the records of all sources that share a clock.
    max: Option<Time>,
    /// What the log said that time has come to.
    floor: Option<Time>,
    /// By source: the largest time of those that keep their own.
    own: BTreeMap<usize, Time>,
}

impl PartitionClock {
    fn watermark(&self, source: usize, (delay, own): (Span, bool)) -> Time {
        let max = if own {
            self.own.get(&source).copied()
        } else {
            self.max
        };
        let told = max.map(|max| max - delay - Span::from_micros(1));
        told.max(self.floor).unwrap_or(Time::MIN)
    }
}

impl Clocks {
    pub(crate) fn new(partitions: u32) -> Clocks {
        Clocks {
            first: 0,
            partitions: (0..partitions).map(|_| PartitionClock::default()).collect(),
        }
    }

    /// Of one partition alone.
    pub(crate) fn of_partition(partition: Partition) -> Clocks {
        Clocks {
            first: partition.0,
            partitions: vec![PartitionClock::default()],
        }
    }

    fn of(&self, partition: u32) -> Option<&PartitionClock> {
        let index = partition.checked_sub(self.first)?;
        self.partitions.get(index as usize)
    }

    fn of_mut(&mut self, partition: u32) -> Option<&mut PartitionClock> {
        let index = partition.checked_sub(self.first)?;
        self.partitions.get_mut(index as usize)
    }

    /// A record of a source happened then.
    pub(crate) fn observe(&mut self, partition: u32, source: Option<usize>, time: Time) {
        let Some(clock) = self.of_mut(partition) else {
            return;
        };
        match source {
            None => clock.max = clock.max.max(Some(time)),
            Some(source) => {
                let known = clock.own.entry(source).or_insert(time);
                *known = time.max(*known);
            }
        }
    }

    /// The log says that time has come so far.
    pub(crate) fn advance_to(&mut self, partition: u32, to: Time) {
        if let Some(clock) = self.of_mut(partition) {
            clock.floor = clock.floor.max(Some(to));
        }
    }

    /// No record of the source with a time at or before this is expected: the least over the
    /// partitions.
    pub(crate) fn watermark(&self, source: usize, clock: (Span, bool)) -> Time {
        let each = self.partitions.iter().map(|of| of.watermark(source, clock));
        each.min().unwrap_or(Time::MIN)
    }

    /// The least watermark of these sources, of which `clocks` has all.
    pub(crate) fn least(&self, sources: &[usize], clocks: &[(Span, bool)]) -> Time {
        let known = |source: &usize| Some(self.watermark(*source, *clocks.get(*source)?));
        let each = sources.iter().filter_map(known);
        each.min().unwrap_or(Time::MIN)
    }

    /// The partition that holds the watermark of a source, when there are several.
    pub(crate) fn held_by(&self, source: usize, clock: (Span, bool)) -> Option<u32> {
        let each = (self.first..).zip(&self.partitions);
        each.min_by_key(|(_, of)| of.watermark(source, clock))
            .map(|(partition, _)| partition)
    }

    /// What a checkpoint keeps of a partition.
    pub(crate) fn note(&self, partition: u32) -> Note {
        let mut kept = BTreeMap::new();
        if let Some(clock) = self.of(partition) {
            let max = clock.max.map(|max| ("max".to_owned(), max));
            let floor = clock.floor.map(|floor| ("floor".to_owned(), floor));
            let own = clock.own.iter();
            let own = own.map(|(source, max)| (format!("max/{source}"), *max));
            let all = max.into_iter().chain(floor).chain(own);
            kept.extend(all.map(|(name, time)| (name, time.micros())));
        }
        if kept.is_empty() {
            Note::None
        } else {
            Note::Clock(kept)
        }
    }

    /// Takes back what a checkpoint kept.
    pub(crate) fn restore(&mut self, partition: u32, note: &Note) {
        let (Note::Clock(kept), Some(clock)) = (note, self.of_mut(partition)) else {
            return;
        };
        for (name, micros) in kept {
            let time = Time::from_micros(*micros);
            match name.strip_prefix("max/").map(str::parse) {
                Some(Ok(source)) => _ = clock.own.insert(source, time),
                _ if name == "max" => clock.max = Some(time),
                _ if name == "floor" => clock.floor = Some(time),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: (Span, bool) = (Span::ZERO, false);

    #[test]
    fn a_partition_without_records_holds_the_watermark() {
        let mut clocks = Clocks::new(2);
        clocks.observe(0, None, Time::from_micros(9));
        assert_eq!(clocks.watermark(0, SHARED), Time::MIN);
        assert_eq!(clocks.held_by(0, SHARED), Some(1));
        clocks.advance_to(1, Time::from_micros(5));
        assert_eq!(clocks.watermark(0, SHARED), Time::from_micros(5));
    }

    #[test]
    fn a_slot_of_one_partition_knows_no_other_clock() {
        let mut clocks = Clocks::of_partition(Partition(2));
        clocks.observe(1, None, Time::from_micros(99));
        clocks.observe(2, None, Time::from_micros(9));
        assert_eq!(clocks.watermark(0, SHARED), Time::from_micros(8));
        assert_eq!(clocks.held_by(0, SHARED), Some(2));
    }

    #[test]
    fn clocks_come_back_as_they_were() {
        let mut clocks = Clocks::new(1);
        clocks.observe(0, None, Time::from_micros(-9));
        clocks.observe(0, Some(3), Time::from_micros(7));
        clocks.advance_to(0, Time::MAX);
        let mut restored = Clocks::new(1);
        restored.restore(0, &clocks.note(0));
        assert_eq!(restored, clocks);
    }
}
