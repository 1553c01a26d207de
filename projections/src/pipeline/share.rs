//! What a slot works on: which keys of which partitions, and which records of a page.

use annals_core::{GenerationSpec, Partition};

use super::clocks::Clocks;
use super::output::EmittedEvent;

/// Which part of a pipeline the machine is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Share {
    /// The keys of a slot among so many, from all of so many partitions.
    Keys {
        slot: u16,
        slots: u16,
        partitions: u32,
    },
    /// All keys of one partition.
    Partition(Partition),
}

impl Share {
    /// All keys of all partitions.
    pub(crate) fn everything(partitions: u32) -> Share {
        Share::Keys {
            slot: 0,
            slots: 1,
            partitions,
        }
    }

    /// What a slot of a generation works on.
    pub(crate) fn of_slot(slot: u16, spec: &GenerationSpec) -> Share {
        if spec.is_by_partition() {
            return Share::Partition(Partition(slot.into()));
        }
        Share::Keys {
            slot,
            slots: spec.slots,
            partitions: spec.partitions,
        }
    }

    pub(crate) fn clocks(self) -> Clocks {
        match self {
            Share::Keys { partitions, .. } => Clocks::new(partitions),
            Share::Partition(partition) => Clocks::of_partition(partition),
        }
    }

    /// Its number among those that share pages.
    pub(crate) fn bucket(self) -> (u16, u16) {
        match self {
            Share::Keys { slot, slots, .. } => (slot, slots),
            Share::Partition(_) => (0, 1),
        }
    }
}

/// The causes of a page that a slot takes, numbered from the first.
pub(crate) struct KeptCauses {
    pub(crate) first: usize,
    pub(crate) end: usize,
    pub(crate) without: Vec<usize>,
}

impl KeptCauses {
    pub(crate) fn skips(&self, records: usize) -> bool {
        self.first > 0 || self.end < records || !self.without.is_empty()
    }

    pub(crate) fn cause(&self, cause: usize) -> Option<usize> {
        let is_kept = (self.first..self.end).contains(&cause);
        (is_kept && self.without.binary_search(&cause).is_err()).then(|| cause - self.first)
    }

    pub(crate) fn event(&self, event: EmittedEvent) -> Option<EmittedEvent> {
        let cause = self.cause((event.when / 2) as usize)?;
        let when = 2 * cause as u32 + event.when % 2;
        Some(EmittedEvent { when, ..event })
    }
}
