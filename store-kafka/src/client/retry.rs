//! Questions that are asked again: answers which the protocol calls retriable are no failures yet.
//!
//! A topic that was just made has no leader that every broker knows of, and the coordinator of a
//! group or of a transaction loads for a moment after it has moved.

use std::time::{Duration, Instant};

use annals_core::Backoff;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::error::code_of;

/// Waits between two tries of one question.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));

/// How long a topic may be unknown to a broker after another one has shown it: metadata travels.
pub(crate) const PROPAGATION: Duration = Duration::from_secs(2);

/// When a question is asked again, and when its last answer counts.
#[derive(Debug)]
pub(crate) struct Retry {
    backoff: Backoff,
    limit: Duration,
    began: Instant,
}

impl Retry {
    /// For a question that may take so long altogether.
    pub(crate) fn within(limit: Duration) -> Retry {
        Retry {
            backoff: BACKOFF,
            limit,
            began: Instant::now(),
        }
    }

    /// What is left of its time, for the try that comes next.
    pub(crate) fn left(&self) -> Duration {
        self.limit.saturating_sub(self.began.elapsed())
    }

    /// The wait before it is asked again; nothing when this answer counts.
    pub(crate) fn wait_after(&mut self, error: &KafkaError) -> Option<Duration> {
        self.wait_at(error, self.began.elapsed())
    }

    fn wait_at(&mut self, error: &KafkaError, elapsed: Duration) -> Option<Duration> {
        let until = retried_for(error)?.min(self.limit);
        let wait = self.backoff.next_wait();
        (elapsed + wait < until).then_some(wait)
    }

    /// Asks until the answer counts. For threads that serve one client and may block.
    pub(crate) fn block<T>(
        mut self,
        mut ask: impl FnMut(Duration) -> Result<T, KafkaError>,
    ) -> Result<T, KafkaError> {
        loop {
            let error = match ask(self.left()) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let Some(wait) = self.wait_after(&error) else {
                return Err(error);
            };
            pause(wait);
        }
    }
}

/// Waits on this thread for all of it: a wake-up that was meant for something else ends nothing.
pub(super) fn pause(wait: Duration) {
    let until = Instant::now() + wait;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

/// How long this answer is asked again for, counted from the first try: nothing when it is final.
fn retried_for(error: &KafkaError) -> Option<Duration> {
    use RDKafkaErrorCode as Code;
    match code_of(error)? {
        // Final, unless a broker has not heard of the topic yet.
        Code::UnknownTopic | Code::UnknownTopicOrPartition => Some(PROPAGATION),
        // Leaders and replicas. What the client does not know has no leader that it could ask.
        Code::UnknownPartition
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::ReplicaNotAvailable
        | Code::ListenerNotFound
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::OffsetNotAvailable
        | Code::PreferredLeaderNotAvailable
        | Code::EligibleLeadersNotAvailable
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::KafkaStorageError
        | Code::UnknownTopicId
        // Coordinators of groups and of transactions.
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::WaitingForCoordinator
        | Code::RebalanceInProgress
        | Code::UnstableOffsetCommit
        | Code::ConcurrentTransactions
        // Controllers and brokers.
        | Code::NotController
        | Code::StaleControllerEpoch
        | Code::BrokerNotAvailable
        | Code::NetworkException
        | Code::RequestTimedOut
        | Code::ThrottlingQuotaExceeded
        | Code::RebootstrapRequired
        // What the client itself gave up on.
        | Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::Retry => Some(Duration::MAX),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: RDKafkaErrorCode) -> KafkaError {
        KafkaError::MetadataFetch(code)
    }

    #[test]
    fn what_passes_is_asked_again_until_the_deadline() {
        use RDKafkaErrorCode as Code;
        // What was answered, after how many milliseconds, and the wait until the next try.
        for (code, elapsed, expected) in [
            (Code::NotLeaderForPartition, 0, Some(20)),
            (Code::LeaderNotAvailable, 9_979, Some(20)),
            (Code::LeaderNotAvailable, 9_980, None),
            (Code::CoordinatorLoadInProgress, 5_000, Some(20)),
            (Code::NotCoordinator, 5_000, Some(20)),
            (Code::RequestTimedOut, 10_000, None),
            (Code::UnknownTopicOrPartition, 1_979, Some(20)),
            (Code::UnknownTopicOrPartition, 1_980, None),
            (Code::UnknownPartition, 5_000, Some(20)),
            (Code::OffsetOutOfRange, 0, None),
            (Code::TopicAuthorizationFailed, 0, None),
            (Code::IllegalGeneration, 0, None),
            (Code::Fatal, 0, None),
        ] {
            let mut retry = Retry::within(Duration::from_secs(10));
            let wait = retry.wait_at(&error(code), Duration::from_millis(elapsed));
            let expected = expected.map(Duration::from_millis);
            assert_eq!(wait, expected, "{code:?} after {elapsed} ms");
        }
        assert_eq!(retried_for(&KafkaError::Canceled), None);
    }

    #[test]
    fn waits_grow_up_to_half_a_second() {
        let mut retry = Retry::within(Duration::from_secs(10));
        let code = error(RDKafkaErrorCode::NotLeaderForPartition);
        let waits: Vec<u128> = (0..7)
            .filter_map(|_| retry.wait_at(&code, Duration::ZERO))
            .map(|wait| wait.as_millis())
            .collect();
        assert_eq!(waits, [20, 40, 80, 160, 320, 500, 500]);
    }

    #[test]
    fn an_answer_that_counts_ends_the_asking() {
        let mut answers = vec![
            Ok(7),
            Err(error(RDKafkaErrorCode::NotLeaderForPartition)),
            Err(error(RDKafkaErrorCode::LeaderNotAvailable)),
        ];
        let asked = Retry::within(Duration::from_secs(60)).block(|left| {
            assert!(left <= Duration::from_secs(60));
            answers.pop().unwrap()
        });
        assert_eq!(asked.unwrap(), 7);
        let mut asked = 0;
        let refused = Retry::within(Duration::from_secs(60)).block(|_| {
            asked += 1;
            Err::<(), _>(error(RDKafkaErrorCode::TopicAuthorizationFailed))
        });
        assert!(refused.is_err());
        assert_eq!(asked, 1);
    }
}
