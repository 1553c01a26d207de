//! The attempts of a call, until it succeeds or is given up.

use std::time::Instant;

use annals_core::{DeadLetter, Metadata, RowChange, with_metadata};
use annals_runner::{Backoff, Progress, contained_async};
use tracing::Instrument;

use super::call::Call;
use super::scheduler::Job;
use super::{ReactError, ReactorOptions};

/// What a call is about.
pub(super) enum About {
    Event(Job<Call>),
    DeadLetter(DeadLetter),
}

/// A call that has ended.
pub(super) struct CallOutcome {
    pub(super) about: About,
    pub(super) attempts: u32,
    pub(super) outcome: Result<Vec<RowChange>, String>,
}

/// Makes a call until it succeeds or there is no use in trying again.
pub(super) async fn make(
    options: ReactorOptions,
    progress: Progress,
    about: About,
    call: Call,
) -> CallOutcome {
    let mut attempts = 0;
    let mut backoff = Backoff::new(options.back_off, ReactorOptions::BACK_OFF_MAX);
    let metadata = Metadata::caused_by(&call.record);
    let outcome = loop {
        attempts += 1;
        let record = &call.record;
        let begun = Instant::now();
        let span = tracing::debug_span!(
            "call",
            reactor = progress.name(),
            key = call.key,
            partition = record.partition.0,
            position = record.position.get(),
            attempt = attempts
        );
        let made = contained_async(async { (call.make)(attempts).await });
        let made = with_metadata(metadata.clone(), made).instrument(span);
        let made = tokio::time::timeout(options.call_timeout, made).await;
        progress.called(matches!(made, Ok(Ok(Ok(_)))), begun.elapsed());
        let reason = match made {
            Ok(Ok(Ok(rows))) => break Ok(rows),
            Ok(Ok(Err(ReactError::Permanent(reason))) | Err(reason)) => break Err(reason),
            Ok(Ok(Err(ReactError::Retry(reason)))) => reason,
            Err(_) => format!("the call took longer than {:?}", options.call_timeout),
        };
        if options.at_most_once || attempts >= options.attempts {
            break Err(reason);
        }
        tokio::time::sleep(backoff.next_wait()).await;
    };
    CallOutcome {
        about,
        attempts,
        outcome,
    }
}
