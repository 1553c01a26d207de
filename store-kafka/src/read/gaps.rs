//! Records that were removed before they were read.

use annals_core::{Partition, Position, StoreError};

use crate::error::invalid;

/// Gaps that an operator accepted, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gaps {
    accepted: Vec<(Partition, Position, String)>,
}

impl Gaps {
    pub(crate) fn accept(&mut self, partition: Partition, up_to: Position, reason: String) {
        self.accepted.push((partition, up_to, reason));
    }

    /// Why the records of a partition up to this position may be missing.
    pub(crate) fn reason(&self, partition: Partition, up_to: Position) -> Option<&str> {
        let found = self
            .accepted
            .iter()
            .find(|(of, accepted, _)| *of == partition && *accepted >= up_to);
        found.map(|(_, _, reason)| reason.as_str())
    }
}

/// The setting of a topic that removes records, for an error text.
pub(crate) fn retention_in(settings: &[(String, String)]) -> Option<String> {
    let set = |key: &str| {
        let found = settings
            .iter()
            .find(|(known, value)| known == key && value != "-1");
        found.map(|(key, value)| format!("`{key}={value}`"))
    };
    set("retention.ms").or_else(|| set("retention.bytes"))
}

/// Why reading stops at a gap, and what to do.
pub(crate) fn stopped(
    topic: &str,
    partition: Partition,
    after: Position,
    begins_after: Position,
    retention: Option<&str>,
) -> StoreError {
    let first = after.next();
    let left = begins_after.next();
    let retention = retention
        .map(|retention| format!(" ({retention})"))
        .unwrap_or_default();
    let accept = if after == Position::START {
        "`Topic::from_what_is_left()` begins with what is left".to_owned()
    } else {
        format!(
            "`Topic::accept_gap(Partition({partition}), Position::new({begins_after}), reason)` \
             continues after them, and a rebuild with `Topic::from_what_is_left()` begins at {left}"
        )
    };
    invalid(format!(
        "positions {first} to {begins_after} of partition {partition} of topic `{topic}` were \
         removed before they were read{retention}; {accept}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_gap_that_was_accepted_is_passed() {
        let mut gaps = Gaps::default();
        gaps.accept(Partition(2), Position::new(9), "a lost week".to_owned());
        assert_eq!(
            gaps.reason(Partition(2), Position::new(9)),
            Some("a lost week")
        );
        assert_eq!(gaps.reason(Partition(2), Position::new(10)), None);
        assert_eq!(gaps.reason(Partition(1), Position::new(9)), None);
    }

    #[test]
    fn a_gap_is_named_with_what_to_do() {
        let error = stopped(
            "orders",
            Partition(2),
            Position::new(9),
            Position::new(88),
            Some("`retention.ms=86400000`"),
        );
        assert_eq!(
            error.to_string(),
            "positions 10 to 88 of partition 2 of topic `orders` were removed before they were \
             read (`retention.ms=86400000`); `Topic::accept_gap(Partition(2), Position::new(88), \
             reason)` continues after them, and a rebuild with `Topic::from_what_is_left()` begins \
             at 89"
        );
    }
}
