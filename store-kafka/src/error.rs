//! What librdkafka says, as failures that callers can act on.

use annals_core::{Failure, StoreError};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// A failure of the client, with what was being done.
pub(crate) fn failed(doing: impl Into<String>, error: KafkaError) -> StoreError {
    StoreError::new(failure(&error), doing.into()).because(error)
}

/// A request that cannot succeed as it is.
pub(crate) fn invalid(what: impl Into<String>) -> StoreError {
    StoreError::new(Failure::Invalid, what.into())
}

/// The brokers do not answer, or a client thread is gone.
pub(crate) fn unavailable(what: impl Into<String>) -> StoreError {
    StoreError::new(Failure::Unavailable, what.into())
}

/// The code of an error; `rdkafka` does not give those of the operations of its admin client.
pub(crate) fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}

fn failure(error: &KafkaError) -> Failure {
    use RDKafkaErrorCode as Code;
    if matches!(
        error,
        KafkaError::ClientConfig(..)
            | KafkaError::ClientCreation(_)
            // The client does not even ask.
            | KafkaError::AdminOpCreation(_)
    ) {
        return Failure::Invalid;
    }
    match code_of(error) {
        Some(code) if is_refusal(code) => Failure::Invalid,
        Some(
            Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::InvalidConfig
            | Code::InvalidTopic
            | Code::InvalidPartitions
            | Code::UnsupportedCompressionType
            | Code::SSL
            | Code::InvalidArgument,
        ) => Failure::Invalid,
        // Also too few brokers for what they replicate by default: one may just be away.
        _ => Failure::Unavailable,
    }
}

/// Whether a broker answers so to a record that it will never take as it is.
pub(crate) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidTimestamp
            | Code::InvalidRecord
            | Code::PolicyViolation
            | Code::UnsupportedForMessageFormat
    )
}

/// Whether the topic or partition is not there (any more).
pub(crate) fn is_unknown_topic(error: &KafkaError) -> bool {
    matches!(
        code_of(error),
        Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition)
    )
}

/// Whether this user may not read the topic.
pub(crate) fn is_denied(error: &KafkaError) -> bool {
    code_of(error) == Some(RDKafkaErrorCode::TopicAuthorizationFailed)
}

/// Whether the offset that was asked for was removed, or never was.
pub(crate) fn is_out_of_range(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    )
}
