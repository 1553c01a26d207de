//! The cases of change data capture, each on a real server or through the adapter of Debezium.
//!
//! `tests/data/cdc-cases.json` names the source of each: tests of Debezium, Supabase etl, Sequin
//! and others. `ANNALS_CDC_CASES` names another file.

// What must not fail is unwrapped.
#![allow(clippy::unwrap_used)]

mod cases;
mod server;
mod slot;
mod world;

use annals_cdc::debezium::{Adapter, Semantic};
use serde_json::Value;

#[test]
fn every_case_of_debezium_gives_the_expected_records() {
    let all = cases::of_kind("debezium-json");
    for case in &all {
        let id = case["id"].as_str().unwrap();
        let mut adapter = adapter(case);
        let mut records = Vec::new();
        for message in cases::messages(id) {
            records.extend(adapter.take(&message).unwrap());
        }
        records.extend(adapter.flush());
        let expected = cases::expected(case);
        assert_eq!(records.len(), expected.len(), "case `{id}`: {records:?}");
        for (at, (record, expected)) in records.iter().zip(&expected).enumerate() {
            cases::check(id, at, &cases::shown(record), expected);
        }
    }
    cases::ran("debezium-json", all.len());
}

/// An adapter that knows what the case says of its tables.
fn adapter(case: &Value) -> Adapter {
    let mut adapter = Adapter::default();
    if case["adapter"]["replica_identity"] == "full" {
        adapter = adapter.identity_full("public.t");
    }
    for (name, kind) in case["column_types"].as_object().into_iter().flatten() {
        let semantic = Semantic::of_type(kind.as_str().unwrap());
        adapter = adapter.columns("public.t", [(name.as_str().into(), semantic)]);
    }
    for (name, schema) in case["column_schemas"].as_object().into_iter().flatten() {
        let of = schema.get("name").or_else(|| schema.get("type")).unwrap();
        let scale = schema["scale"].as_u64().map(|scale| scale as u32);
        let semantic = Semantic::of_schema(of.as_str().unwrap(), scale);
        adapter = adapter.columns("public.t", [(name.as_str().into(), semantic)]);
    }
    adapter
}

#[test]
fn every_procedure_has_a_test_of_its_name() {
    let all = cases::of_kind("procedure");
    for case in &all {
        let id = case["id"].as_str().unwrap();
        assert!(
            on_postgres::procedures::is_tested(id),
            "procedure `{id}` has no test"
        );
    }
    cases::ran("procedure", all.len());
}

mod on_postgres {
    pub(crate) mod procedures;

    use std::collections::BTreeMap;

    use annals_cdc::{Lsn, Record};
    use serde_json::Value;

    use super::cases;
    use super::server::{Psql, Server};
    use super::slot;

    const SLOT: &str = "cdc_case";

    #[test]
    fn every_sql_case_gives_the_expected_records() {
        let server = Server::start(&["max_prepared_transactions=10"]);
        let all = cases::of_kind("sql");
        for (number, case) in all.iter().enumerate() {
            let id = case["id"].as_str().unwrap();
            let database = format!("case_{number}");
            let url = server.database(&database);
            run(&server, &database, &url, case);
            let records = slot::decoded(&server, &database, SLOT);
            let expected = cases::expected(case);
            assert_eq!(records.len(), expected.len(), "case `{id}`: {records:#?}");
            check_order(id, &records);
            let transactions = transactions(&records);
            for (at, (record, expected)) in records.iter().zip(&expected).enumerate() {
                let mut found = cases::shown(record);
                found.insert("tx".into(), transactions[at].into());
                cases::check(id, at, &found, expected);
            }
            let drop = format!("select pg_drop_replication_slot('{SLOT}')");
            server.psql(&database, &drop);
        }
        cases::ran("sql", all.len());
    }

    /// Does what the case says, with a slot in between.
    fn run(server: &Server, database: &str, url: &str, case: &Value) {
        server.psql(database, case["setup"].as_str().unwrap());
        let slot = format!("select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')");
        server.psql(database, &slot);
        if let Some(script) = case["sql"].as_str() {
            server.psql(database, script);
            return;
        }
        let mut sessions = BTreeMap::new();
        for step in case["steps"].as_array().unwrap() {
            let session = step["session"].as_str().unwrap();
            let psql = sessions.entry(session).or_insert_with(|| Psql::open(url));
            psql.run(step["sql"].as_str().unwrap());
        }
        sessions.into_values().for_each(|psql| {
            psql.end();
        });
    }

    /// Commits go up, and so do the ordinals within each.
    fn check_order(id: &str, records: &[Record]) {
        let places: Vec<(Lsn, u64)> = records
            .iter()
            .map(|record| (record.at.lsn, record.at.ordinal))
            .collect();
        assert!(
            places.is_sorted_by(|one, other| one < other),
            "case `{id}`: {places:?}"
        );
    }

    /// Of each record the number of its transaction among those that are seen.
    fn transactions(records: &[Record]) -> Vec<Option<u64>> {
        let mut last = None;
        let mut number = 0;
        let numbered = records.iter().map(|record| {
            record.at.xid?;
            if last != Some(record.at.lsn) {
                last = Some(record.at.lsn);
                number += 1;
            }
            Some(number)
        });
        numbered.collect()
    }
}
