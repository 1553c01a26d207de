//! What a recorder of metrics gets, when the program has one: the names are promises, listed in
//! `docs/operating`.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
};
use metrics::{gauge, histogram};

use annals_core::Generation;

use crate::kind::Kind;

const LAG_EVENTS: &str = "annals_projection_lag_events";
const LAG_SECONDS: &str = "annals_projection_lag_seconds";
const EVENTS: &str = "annals_projection_events_total";
const COMMITS: &str = "annals_projection_commits_total";
const COMMIT_SECONDS: &str = "annals_projection_commit_seconds";
const ROWS: &str = "annals_projection_rows_written_total";
const DEAD_LETTER_KEYS: &str = "annals_projection_dead_letter_keys";
const RETRIES: &str = "annals_projection_retries_total";
const LOST: &str = "annals_projection_leases_lost_total";
const PROGRESS: &str = "annals_projection_rebuild_progress_ratio";
const CALLS: &str = "annals_reactor_calls_total";
const CALL_SECONDS: &str = "annals_reactor_call_seconds";

/// Says what each is and in which unit, to the recorder that the program has by now.
pub(crate) fn describe() {
    describe_gauge!(
        LAG_EVENTS,
        Unit::Count,
        "Events of the log between what is settled and the head."
    );
    describe_gauge!(
        LAG_SECONDS,
        Unit::Seconds,
        "Age of the oldest event that is not settled."
    );
    describe_counter!(EVENTS, Unit::Count, "Events that were settled.");
    describe_counter!(
        COMMITS,
        Unit::Count,
        "Transactions of a worker that were committed."
    );
    describe_histogram!(
        COMMIT_SECONDS,
        Unit::Seconds,
        "How long a transaction of a worker took."
    );
    describe_counter!(ROWS, Unit::Count, "Rows that were written or removed.");
    describe_gauge!(DEAD_LETTER_KEYS, Unit::Count, "Keys in dead letters.");
    describe_counter!(
        RETRIES,
        Unit::Count,
        "Times that a worker started again after a failure."
    );
    describe_counter!(
        LOST,
        Unit::Count,
        "Slots that another worker took before this one gave them back."
    );
    describe_gauge!(
        PROGRESS,
        Unit::Count,
        "How much of the log a generation that is being built has seen, from 0 to 1."
    );
    describe_counter!(
        CALLS,
        Unit::Count,
        "Calls of a reactor that have ended, each attempt once."
    );
    describe_histogram!(
        CALL_SECONDS,
        Unit::Seconds,
        "How long a call of a reactor took."
    );
}

/// The metrics of one slot.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) lag_events: Gauge,
    pub(crate) lag_seconds: Gauge,
    pub(crate) events: Counter,
    pub(crate) commits: Counter,
    pub(crate) commit_seconds: Histogram,
    pub(crate) rows: Counter,
    pub(crate) dead_letter_keys: Gauge,
    pub(crate) retries: Counter,
    pub(crate) leases_lost: Counter,
    pub(crate) rebuild_progress: Gauge,
    calls: [Counter; 2],
    call_seconds: Histogram,
}

impl Meter {
    pub(crate) fn of(kind: Kind, generation: &Generation, slot: u16) -> Meter {
        let labels = [
            ("kind", kind.name().to_owned()),
            (
                "projection",
                kind.display_name(&generation.spec.view).to_owned(),
            ),
            ("generation", generation.id.to_string()),
            ("slot", slot.to_string()),
        ];
        let reactor = [
            ("kind", labels[0].1.clone()),
            ("reactor", labels[1].1.clone()),
        ];
        let calls = |outcome: &'static str| {
            let labels: Vec<_> = reactor
                .iter()
                .cloned()
                .chain([("outcome", outcome.to_owned())])
                .collect();
            counter!(CALLS, &labels)
        };
        Meter {
            lag_events: gauge!(LAG_EVENTS, &labels),
            lag_seconds: gauge!(LAG_SECONDS, &labels),
            events: counter!(EVENTS, &labels),
            commits: counter!(COMMITS, &labels),
            commit_seconds: histogram!(COMMIT_SECONDS, &labels),
            rows: counter!(ROWS, &labels),
            dead_letter_keys: gauge!(DEAD_LETTER_KEYS, &labels),
            retries: counter!(RETRIES, &labels),
            leases_lost: counter!(LOST, &labels),
            rebuild_progress: gauge!(PROGRESS, &labels),
            calls: [calls("failed"), calls("done")],
            call_seconds: histogram!(CALL_SECONDS, &reactor),
        }
    }

    /// A call of a reactor has ended.
    pub(crate) fn called(&self, done: bool, took: Duration) {
        self.calls[usize::from(done)].increment(1);
        self.call_seconds.record(took);
    }
}
