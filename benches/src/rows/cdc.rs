//! Change data capture from the server of the rows.

use std::path::Path;
use std::time::Duration;

use annals_benches::Outcome;
use annals_benches::cdc::Shop;
use annals_benches::server;

use super::{backend, file, row, sqlite};
use crate::report::{Report, Row, Target};

/// All rows, as far as the filter wants them; none when there is no server.
pub(super) fn rows(report: &mut Report, quick: bool) -> Outcome<()> {
    if server::url().is_none() {
        return Ok(());
    }
    let rows = if quick { 50_000 } else { 500_000 };
    for (kind, in_transaction) in [("large", 1_000), ("singles", 1)] {
        rates(report, kind, rows, in_transaction)?;
    }
    seen(report, if quick { 100 } else { 2_000 })
}

fn rates(report: &mut Report, kind: &str, rows: usize, in_transaction: usize) -> Outcome<()> {
    let name = |into: &str| format!("cdc/{kind}/{into}");
    let names = ["decoded", "sqlite", "postgres"].map(name);
    if !names.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let shop = report
        .runtime
        .block_on(Shop::filled(rows, in_transaction))?;
    let each = match in_transaction {
        1 => "one a transaction".to_owned(),
        many => format!("{many} a transaction"),
    };
    let beside = "pg_recvlogical with pgoutput, to /dev/null";
    let of = |into: &str| format!("{rows} inserts of another database, {each}, {into}");
    let [decoded, into_sqlite, into_postgres] = names;
    report.compare(
        row(&decoded, &of("decoded"), "rows/s", beside, Some(0.8)),
        |runtime, _| runtime.block_on(shop.decode()),
        |runtime, _| runtime.block_on(shop.pg_recvlogical()),
    )?;
    report.compare(
        row(
            &into_sqlite,
            &of("into a log on SQLite"),
            "rows/s",
            beside,
            Some(0.8),
        ),
        |runtime, directory| {
            runtime.block_on(async { shop.take_into(&sqlite(&file(directory)).await?).await })
        },
        |runtime, _| runtime.block_on(shop.pg_recvlogical()),
    )?;
    report.compare(
        row(
            &into_postgres,
            &of("into a log on the same server"),
            "rows/s",
            beside,
            Some(0.8),
        ),
        |runtime, _| {
            backend::measured(runtime, Path::new(""), async |schema: &server::Schema| {
                shop.take_into(&schema.store().await?).await
            })
        },
        |runtime, _| runtime.block_on(shop.pg_recvlogical()),
    )?;
    report.runtime.block_on(shop.drop())
}

fn seen(report: &mut Report, rows: usize) -> Outcome<()> {
    let row = |store: &str| Row {
        name: format!("cdc/seen/{store}"),
        work: "an insert of another database until its row is seen here, 100 a second".into(),
        unit: "ms",
        beside: "the insert alone, until it is committed".into(),
        target: Some(Target::Within(Duration::from_millis(30))),
    };
    if !["sqlite", "postgres"]
        .iter()
        .any(|store| report.wants(&row(store).name))
    {
        return Ok(());
    }
    let shop = report.runtime.block_on(Shop::empty())?;
    report.compare_latencies(
        row("sqlite"),
        |runtime, directory| {
            runtime.block_on(async { shop.seen(&sqlite(&file(directory)).await?, rows, 100).await })
        },
        |runtime, _| runtime.block_on(shop.inserted(rows, 100)),
    )?;
    report.compare_latencies(
        row("postgres"),
        |runtime, _| {
            backend::measured(runtime, Path::new(""), async |schema: &server::Schema| {
                shop.seen(&schema.store().await?, rows, 100).await
            })
        },
        |runtime, _| runtime.block_on(shop.inserted(rows, 100)),
    )?;
    report.runtime.block_on(shop.drop())
}
