//! From an append to the alert that a pipeline appends because of it.

use std::time::Duration;

use annals_benches::Outcome;
use annals_benches::alert::Alerts;

use super::{file, sqlite};
use crate::report::{Report, Row, Target};

pub(super) fn rows(report: &mut Report, quick: bool) -> Outcome<()> {
    let work = Alerts {
        appends: if quick { 100 } else { 2_000 },
        per_second: 100,
    };
    report.compare_latencies(
        Row {
            name: "pipeline/alert/sqlite".into(),
            work: "a durable append until the alert that a pipeline appends is read, 100 a second"
                .into(),
            unit: "ms",
            beside: "two durable appends, one after the other".into(),
            target: Some(Target::Within(Duration::from_millis(10))),
        },
        |runtime, directory| {
            runtime.block_on(async { work.run(&sqlite(&file(directory)).await?).await })
        },
        |runtime, directory| {
            runtime.block_on(async { work.two_appends(&sqlite(&file(directory)).await?).await })
        },
    )
}
