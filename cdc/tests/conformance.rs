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

use annals_cdc::TableName;
use annals_cdc::debezium::{Adapter, DebeziumMessage, Semantic};
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn every_case_is_of_a_kind_that_is_run() {
    let kinds = ["sql", "debezium-json", "procedure"];
    let of_kinds = kinds.map(|kind| cases::of_kind(kind).len());
    assert_eq!(of_kinds.iter().sum::<usize>(), cases::all().len());
}

#[test]
fn every_case_of_debezium_gives_the_expected_records() {
    let all = cases::of_kind("debezium-json");
    check_debezium(&all, cases::messages);
    cases::ran("debezium-json", all.len());
    let own = cases::own_of_kind("debezium-json");
    check_debezium(&own, cases::own_messages);
    cases::ran("own debezium-json", own.len());
}

fn check_debezium(all: &[Value], messages: fn(&str) -> Vec<DebeziumMessage>) {
    for case in all {
        let id = case["id"].as_str().unwrap();
        let mut adapter = adapter(case);
        let mut records = Vec::new();
        for message in messages(id) {
            records.extend(adapter.take(&message).unwrap());
        }
        records.extend(adapter.flush());
        let expected = cases::expected(case);
        assert_eq!(records.len(), expected.len(), "case `{id}`: {records:?}");
        for (at, (record, expected)) in records.iter().zip(&expected).enumerate() {
            cases::check(id, at, &cases::shown(record), expected);
        }
    }
}

/// An adapter that knows what the case says of its tables.
fn adapter(case: &Value) -> Adapter {
    let mut adapter = Adapter::default();
    let settings = case["adapter"].as_object().into_iter().flatten();
    for (name, value) in settings {
        let value = value.as_str().unwrap();
        adapter = match (&**name, value) {
            ("replica_identity", "full") => adapter.identity_full_everywhere(),
            ("replica_identity", "default" | "index" | "nothing") => adapter,
            ("unavailable" | "unavailable_value_placeholder", text) => adapter.unavailable(text),
            _ => panic!("case {}: no adapter has `{name}` of `{value}`", case["id"]),
        };
    }
    let mut columns = Vec::new();
    for (name, kind) in case["column_types"].as_object().into_iter().flatten() {
        columns.push((
            name.as_str().into(),
            Semantic::of_type(kind.as_str().unwrap()),
        ));
    }
    for (name, schema) in case["column_schemas"].as_object().into_iter().flatten() {
        let of = schema.get("name").or_else(|| schema.get("type")).unwrap();
        let scale = schema
            .get("scale")
            .or_else(|| schema["parameters"].get("scale"));
        let scale = scale.and_then(|scale| match scale {
            Value::String(digits) => digits.parse().ok(),
            scale => scale.as_u64().map(|scale| scale as u32),
        });
        columns.push((
            name.as_str().into(),
            Semantic::of_schema(of.as_str().unwrap(), scale),
        ));
    }
    for table in tables(case) {
        adapter = adapter.columns(&table, columns.clone());
    }
    adapter
}

/// The tables that the messages of a case are of, as SQL names them.
fn tables(case: &Value) -> BTreeSet<String> {
    let messages = case["messages"].as_array().into_iter().flatten();
    let tables = messages.filter_map(|message| {
        let value = &message["value"];
        let source = [&value["source"], &value["payload"]["source"]];
        let source = source.into_iter().find(|source| source.is_object())?;
        let of = |names: [&str; 2]| names.iter().find_map(|name| source[name].as_str());
        let table = TableName::new(of(["schema", "db"])?, of(["table", "collection"])?);
        Some(table.quoted())
    });
    tables.collect()
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
    mod keys;
    mod measured;
    mod outbox;
    pub(crate) mod procedures;
    mod published;
    mod resync;
    mod servers;
    mod skips;
    mod steps;
    mod teeth;

    use std::collections::BTreeMap;
    use std::sync::mpsc;
    use std::thread::JoinHandle;
    use std::time::Duration;

    use annals::Annals;
    use annals::store::{Append, ReadStream};
    use annals_cdc::{Body, EventBody, EventMaker, Lsn, Record, RowRecord, body_of};
    use annals_core::Stored;
    use serde_json::Value;

    use super::server::{Psql, Server};
    use super::{cases, slot, world};

    const SLOT: &str = "cdc_case";

    #[test]
    fn every_sql_case_gives_the_expected_records() {
        let ran = check("case", &cases::of_kind("sql"));
        cases::ran("sql", ran);
    }

    #[test]
    fn every_variation_gives_the_expected_records() {
        let ran = check("own", &cases::own());
        cases::ran("own", ran);
    }

    /// Runs those that the server can, and says how many these are.
    fn check(prefix: &str, all: &[Value]) -> usize {
        let server = Server::start(&["max_prepared_transactions=10"]);
        let version = server.psql("postgres", "show server_version_num");
        let version = version.parse::<u32>().unwrap() / 10_000;
        let log = Log::new();
        let mut ran = 0;
        for (number, case) in all.iter().enumerate() {
            if cases::wanted_version(case) > version {
                cases::skipped(case, version);
                continue;
            }
            let id = case["id"].as_str().unwrap();
            let database = format!("{prefix}_{number}");
            let url = server.database(&database);
            run(&server, &database, &url, case);
            let records = slot::decoded(&server, &database, SLOT);
            let expected = cases::expected(case);
            assert_eq!(records.len(), expected.len(), "case `{id}`: {records:#?}");
            check_order(id, &records);
            let transactions = transactions(&records);
            let back = log.through(id, &records);
            for (at, (record, expected)) in records.iter().zip(&expected).enumerate() {
                for record in [record, &back[at]] {
                    let mut found = cases::shown(record);
                    found.insert("tx".into(), transactions[at].into());
                    cases::check(id, at, &found, expected);
                }
            }
            let drop = format!("select pg_drop_replication_slot('{SLOT}')");
            server.psql(&database, &drop);
            ran += 1;
        }
        ran
    }

    /// A log in a file.
    struct Log {
        runtime: tokio::runtime::Runtime,
        db: Annals,
        _folder: tempfile::TempDir,
    }

    impl Log {
        fn new() -> Log {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let folder = tempfile::tempdir().unwrap();
            Log {
                db: runtime.block_on(world::open(folder.path())),
                runtime,
                _folder: folder,
            }
        }

        /// The records as they are after they were stored and read again.
        fn through(&self, source: &str, records: &[Record]) -> Vec<Record> {
            let maker = EventMaker::new(source, "");
            let through = records.iter().map(|record| match &record.body {
                Body::Row(row) => self.runtime.block_on(self.row(&maker, record, row)),
                _ => record.clone(),
            });
            through.collect()
        }

        async fn row(&self, maker: &EventMaker, record: &Record, row: &RowRecord) -> Record {
            let made = maker.row(record, row, 1, None).unwrap();
            let (stream, _) = made.last().unwrap().clone();
            for (stream, event) in made {
                let append = Append::new(stream, [event]);
                self.db.store().append(append).await.unwrap();
            }
            let last = ReadStream::of(stream).backward().limit(1);
            let page = self.db.store().read_stream(last).await.unwrap();
            let EventBody::Row(op, payload) = body_of(Stored::from(&page.events[0])).unwrap()
            else {
                panic!("no row: {:?}", page.events);
            };
            Record {
                body: Body::Row(RowRecord {
                    op,
                    before: payload.before(),
                    key: payload.key,
                    after: payload.after,
                    unchanged: payload.unchanged,
                    ..row.clone()
                }),
                ..record.clone()
            }
        }
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
            let session = sessions
                .entry(session)
                .or_insert_with(|| Session::open(url));
            session.run(step["sql"].as_str().unwrap());
        }
        sessions.into_values().for_each(Session::end);
    }

    /// How long the next step of another session waits for one: it may wait for a lock that the
    /// other one has.
    const STEP: Duration = Duration::from_secs(2);

    /// A session whose steps may wait for other sessions.
    struct Session {
        scripts: mpsc::Sender<String>,
        done: mpsc::Receiver<()>,
        /// Scripts that were given and have not said that they are done.
        open: usize,
        runs: JoinHandle<()>,
    }

    impl Session {
        fn open(url: &str) -> Session {
            let mut psql = Psql::open(url);
            let (scripts, given) = mpsc::channel::<String>();
            let (says, done) = mpsc::channel();
            let runs = std::thread::spawn(move || {
                for script in given {
                    psql.run(&script);
                    let _ = says.send(());
                }
                psql.end();
            });
            Session {
                scripts,
                done,
                open: 0,
                runs,
            }
        }

        fn run(&mut self, script: &str) {
            self.scripts.send(script.to_owned()).unwrap();
            self.open += 1;
            while self.open > 0 && self.done.recv_timeout(STEP).is_ok() {
                self.open -= 1;
            }
        }

        fn end(self) {
            drop(self.scripts);
            self.runs.join().unwrap();
        }
    }

    /// Commits go up, and so do the ordinals within each.
    fn check_order(id: &str, records: &[Record]) {
        let order: Vec<(Lsn, u64)> = records
            .iter()
            .map(|record| (record.at.lsn, record.at.ordinal))
            .collect();
        assert!(
            order.is_sorted_by(|one, other| one < other),
            "case `{id}`: {order:?}"
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
