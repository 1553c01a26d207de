//! What clients say without being asked: kept for error texts, and traced.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Remembers the last thing that a client complained about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    last: Arc<Mutex<Option<String>>>,
}

impl Context {
    /// The last complaint, in parentheses, for the end of an error text.
    pub(crate) fn last_error(&self) -> String {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref()
            .map(|reason| format!(" ({reason})"))
            .unwrap_or_default()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "a Kafka client reports an error");
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // That all are down follows from what was said of each.
        let follows = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if !follows || last.is_none() {
            *last = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Context {}
