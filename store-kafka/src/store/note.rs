//! What an owner says in a partition when it begins to write there: who it is, where commands are
//! sent to, and how many partitions the topic has.

use std::fmt;

/// Between the instance and the number of partitions, which notes of earlier versions do not have.
const PARTITIONS: &str = " partitions=";

/// A note of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnerNote<'a> {
    /// Distinguishes two that have the same address.
    pub(super) instance: &'a str,
    /// How many partitions the topic had; nothing where that was not said.
    pub(super) partitions: Option<u32>,
    pub(super) address: &'a str,
}

impl<'a> OwnerNote<'a> {
    pub(super) fn read(note: &'a str) -> OwnerNote<'a> {
        let (who, address) = note.split_once('\n').unwrap_or((note, note));
        let (instance, count) = who.split_once(PARTITIONS).unwrap_or((who, ""));
        OwnerNote {
            instance,
            partitions: count.parse().ok(),
            address,
        }
    }
}

impl fmt::Display for OwnerNote<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.instance)?;
        if let Some(count) = self.partitions {
            write!(f, "{PARTITIONS}{count}")?;
        }
        write!(f, "\n{}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        for partitions in [Some(3), None] {
            let note = OwnerNote {
                instance: "7f",
                partitions,
                address: "http://10.0.0.7:8080",
            };
            assert_eq!(OwnerNote::read(&note.to_string()), note);
        }
    }

    #[test]
    fn a_note_of_an_earlier_version_has_no_count() {
        let note = OwnerNote::read("7f\nmachine:4711");
        assert_eq!((note.instance, note.partitions), ("7f", None));
        assert_eq!(note.address, "machine:4711");
        assert_eq!(OwnerNote::read("machine").address, "machine");
    }
}
