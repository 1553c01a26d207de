//! Ends of a partition that are told before any record.
//!
//! A client says where it is only after a record or a marker. A leader that was elected just now
//! may know an earlier end than the previous leader has told: it may be the offset at which reading
//! began, although records after it were committed. It learns the later end in a moment. So such an
//! end counts only when it is told again, after the partition was asked where it ends.
//!
//! A client does not pass aborted records before it comes to their marker, which may be after the
//! end of what is stable. An end that is told before the one that is known may be either of both,
//! and counts by the same rule.

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::topic_partition_list::Offset;

/// Where the client of a consumer is in a partition; nothing before its first record or marker.
pub(crate) fn position<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> Option<i64> {
    let reached = consumer.position().ok()?;
    match reached.find_partition(topic, partition)?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

/// How far one reader has come that is told of ends.
#[derive(Debug, Default)]
pub(crate) struct EarlyEnd {
    /// Where reading began, and where the partition ended, asked after an end was told there.
    confirmed: Option<(i64, i64)>,
}

impl EarlyEnd {
    /// Everything before this offset was read, by an end that was told just now: `position` is
    /// where the client is, `from` is where it began, `end` asks where the partition ends. Nothing
    /// when it is to read from there once more.
    pub(crate) fn reached<E>(
        &mut self,
        position: Option<i64>,
        from: i64,
        end: impl FnOnce() -> Result<i64, E>,
    ) -> Result<Option<i64>, E> {
        if let Some(position) = position {
            return Ok(Some(position.max(from)));
        }
        if let Some((_, end)) = self.confirmed.take().filter(|(of, _)| *of == from) {
            return Ok(Some(end));
        }
        let end = end()?;
        if end <= from {
            return Ok(Some(from));
        }
        self.confirmed = Some((from, end));
        Ok(None)
    }

    /// Whether everything before `to` was read, by an end that was told just now, where the
    /// partition did not end before `to` when it was asked. `from` is where reading began, and
    /// moves with the client: where the answer is no, it is to read from there once more.
    pub(crate) fn has_read<E>(
        &mut self,
        position: Option<i64>,
        from: &mut i64,
        to: i64,
        end: impl FnOnce() -> Result<i64, E>,
    ) -> Result<bool, E> {
        *from = position.unwrap_or(*from).max(*from);
        if *from >= to {
            return Ok(true);
        }
        let reached = self.reached(None, *from, end)?;
        Ok(reached.is_some_and(|reached| reached >= to))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const FROM: i64 = 50;

    /// What an end says that is told while the partition ends at `end`, if that is asked for.
    fn told(early: &mut EarlyEnd, position: Option<i64>, end: Option<i64>) -> Option<i64> {
        let end = || Ok::<_, Infallible>(end.expect("it is not to be asked for"));
        let Ok(reached) = early.reached(position, FROM, end);
        reached
    }

    #[test]
    fn an_end_told_by_a_leader_that_lags_passes_nothing() {
        let mut early = EarlyEnd::default();
        assert_eq!(told(&mut early, None, Some(100)), None);
        // It has caught up, and its records came.
        assert_eq!(told(&mut early, Some(100), None), Some(100));
    }

    #[test]
    fn an_end_told_twice_passes_what_is_no_record() {
        let mut early = EarlyEnd::default();
        assert_eq!(told(&mut early, None, Some(100)), None);
        assert_eq!(told(&mut early, None, None), Some(100));
        assert_eq!(told(&mut early, None, Some(120)), None, "a later one");
    }

    #[test]
    fn an_end_where_reading_began_is_believed_at_once() {
        let mut early = EarlyEnd::default();
        assert_eq!(told(&mut early, None, Some(FROM)), Some(FROM));
        assert_eq!(told(&mut early, Some(60), None), Some(60));
    }

    /// Whether everything before 100 was read, by an end that is told at `position` while the
    /// partition ends at `end`, if that is asked for.
    fn has_read(
        early: &mut EarlyEnd,
        from: &mut i64,
        position: Option<i64>,
        end: Option<i64>,
    ) -> bool {
        let end = || Ok::<_, Infallible>(end.expect("it is not to be asked for"));
        let Ok(is_read) = early.has_read(position, from, 100, end);
        is_read
    }

    #[test]
    fn aborted_records_before_an_open_transaction_are_passed() {
        let (mut early, mut from) = (EarlyEnd::default(), FROM);
        // Their marker is past the end that is known: the client stays before them.
        assert!(!has_read(&mut early, &mut from, Some(90), Some(100)));
        assert_eq!(from, 90);
        assert!(has_read(&mut early, &mut from, None, None));
    }

    #[test]
    fn an_end_before_the_known_one_passes_no_record() {
        let (mut early, mut from) = (EarlyEnd::default(), FROM);
        assert!(!has_read(&mut early, &mut from, Some(60), Some(100)));
        // More came in between, and the leader may still lag.
        assert!(!has_read(&mut early, &mut from, Some(80), Some(100)));
        assert_eq!(from, 80);
        assert!(has_read(&mut early, &mut from, Some(100), None));
    }

    #[test]
    fn a_leader_that_lags_itself_is_asked_again() {
        let (mut early, mut from) = (EarlyEnd::default(), FROM);
        assert!(!has_read(&mut early, &mut from, None, Some(FROM)));
        assert!(!has_read(&mut early, &mut from, None, Some(70)));
        assert!(!has_read(&mut early, &mut from, None, None), "up to 70");
        assert!(!has_read(&mut early, &mut from, None, Some(100)));
        assert!(has_read(&mut early, &mut from, None, None));
    }
}
