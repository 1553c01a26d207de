//! What a checkout costs when its product was sold seldom or often: the same.

use annals_benches::Outcome;
use annals_benches::checkout::Checkouts;
use annals_benches::latency::Latencies;
use tempfile::TempDir;

use super::backend::{Backend, measured};
use super::row;
use crate::report::Report;

/// Events of the product before: a few, and many.
const FEW: usize = 1_000;
const MANY: usize = 100_000;
/// It is flat when the median grows by no more than this.
const FLAT: f64 = 1.3;

pub(super) fn rows<B: Backend>(report: &mut Report, quick: bool) -> Outcome<()> {
    let checkouts = if quick { 50 } else { 500 };
    for (name, what, is_cold) in [
        ("warm", "in a process that has sold it before", false),
        ("cold", "in a process that has cached nothing", true),
    ] {
        let row = row(
            &format!("checkout/{name}/{}", B::NAME),
            &format!("a checkout of a product with 100,000 events, {what}; beside one with 1,000"),
            "ms",
            "",
            None,
        );
        if !report.wants(&row.name) {
            continue;
        }
        let mut latencies = Vec::new();
        for sold in [FEW, MANY] {
            let work = Checkouts {
                sold,
                checkouts,
                is_cold,
            };
            let directory = TempDir::new()?;
            let place = directory.path();
            latencies.push(measured(&report.runtime, place, async |of: &B| {
                work.run(&of.store().await?).await
            })?);
        }
        let [few, many] = [&latencies[0], &latencies[1]].map(|of| milliseconds(of, 50));
        let grows = many / few;
        report.state(
            row,
            format!(
                "p50 {many:.2}, p99 {:.2} ms",
                milliseconds(&latencies[1], 99)
            ),
            format!(
                "p50 {few:.2}, p99 {:.2} ms",
                milliseconds(&latencies[0], 99)
            ),
            format!("{grows:.2}"),
            grows <= FLAT,
        );
    }
    Ok(())
}

pub(super) fn milliseconds(latencies: &Latencies, percent: u8) -> f64 {
    latencies
        .percentile(percent)
        .unwrap_or_default()
        .as_secs_f64()
        * 1e3
}
