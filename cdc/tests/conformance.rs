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
use serde_json::{Value, json};
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

#[test]
fn a_case_may_say_for_which_versions_it_is() {
    for (text, versions) in [
        ("max_prepared_transactions > 0", 0..u32::MAX),
        ("PostgreSQL 15+", 15..u32::MAX),
        ("PostgreSQL 16 or newer, wal_level = logical", 16..u32::MAX),
        ("hstore; PostgreSQL >= 17", 17..u32::MAX),
        ("PostgreSQL < 18", 0..18),
        ("PostgreSQL 17 or older", 0..18),
        ("before PostgreSQL 18", 0..18),
        ("PostgreSQL 15-17", 15..18),
        ("PostgreSQL >= 15, PostgreSQL < 17", 15..17),
    ] {
        assert_eq!(cases::versions_in(text), versions, "{text}");
    }
}

#[test]
fn abbreviations_of_a_case_are_written_out() {
    let record = json!({"after": {"n": {"$i_plus": 7}, "v": {"$repeat": ["{i}", 2]}}});
    let case = json!({"id": "x", "expected": [
        {"$range": [1, 2], "record": record},
        {"after": {"v": {"$concat": ["{i}", {"$repeat": ["a", 2]}]}}},
    ]});
    let wanted = [
        json!({"after": {"n": 8, "v": "11"}}),
        json!({"after": {"n": 9, "v": "22"}}),
        json!({"after": {"v": "{i}aa"}}),
    ];
    assert_eq!(cases::expected(&case), wanted);
    let script = json!(["select 1", {"$repeat": ["x", 2]}]);
    assert_eq!(cases::script("x", &script), "select 1\n;\nxx");
}

#[test]
fn what_a_record_does_not_have_is_null() {
    let Value::Object(row) = json!({"op": "u", "after": {"id": "7"}, "unchanged": ["a", "b"]})
    else {
        panic!("no object");
    };
    let expected = json!({"after": {"id": 7}, "unchanged": ["b", "a"], "before": null});
    cases::check("x", 0, &row, &expected);
}

fn check_debezium(all: &[Value], messages: fn(&str) -> Vec<DebeziumMessage>) {
    for case in all {
        let id = case["id"].as_str().unwrap();
        let mut adapter = adapter(case);
        let mut records = Vec::new();
        for message in messages(id) {
            let taken = adapter.take(&message);
            records.extend(taken.unwrap_or_else(|error| panic!("case `{id}`: {error}")));
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
    for (name, value) in members(case, "adapter") {
        adapter = match (&**name, value) {
            ("replica_identity", Value::Object(tables)) => {
                tables.iter().fold(adapter, |adapter, (table, identity)| {
                    match identity.as_str() {
                        Some("full") => adapter.identity_full(table),
                        Some("default" | "index" | "nothing") => adapter,
                        _ => panic!("case {}: no identity is {identity}", case["id"]),
                    }
                })
            }
            ("replica_identity", Value::String(identity)) => match &**identity {
                "full" => adapter.identity_full_everywhere(),
                "default" | "index" | "nothing" => adapter,
                _ => panic!("case {}: no identity is `{identity}`", case["id"]),
            },
            ("unavailable" | "unavailable_value_placeholder", Value::String(text)) => {
                adapter.unavailable(text)
            }
            _ => panic!("case {}: no adapter has `{name}` of {value}", case["id"]),
        };
    }
    let mut columns = Vec::new();
    for (name, kind) in members(case, "column_types") {
        let kind = kind.as_str();
        let kind = kind.unwrap_or_else(|| panic!("case {}: no type of `{name}`", case["id"]));
        columns.push((name.as_str().into(), Semantic::of_type(kind)));
    }
    for (name, mut schema) in members(case, "column_schemas") {
        // Of an array, what its elements are.
        while let (None, Some(items)) = (schema.get("name"), schema.get("items")) {
            schema = items;
        }
        let of = schema.get("name").or_else(|| schema.get("type"));
        let of = of.unwrap_or_else(|| panic!("case {}: no schema of `{name}`", case["id"]));
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

/// The members of an object of a case, where it has that.
fn members<'a>(case: &'a Value, of: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let found = &case[of];
    assert!(
        found.is_null() || found.is_object(),
        "case {}: `{of}` is no object",
        case["id"]
    );
    found.as_object().into_iter().flatten()
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

    /// What a case may leave for all databases. No slot is made while a transaction is prepared,
    /// and other cases may have roles and origins of the same names.
    const CLEAN: &str = "select format('rollback prepared %L', gid) from pg_prepared_xacts \
        where database = current_database() \\gexec\n\
        select pg_replication_origin_drop(roname) from pg_replication_origin;\n\
        select format('drop owned by %1$I cascade; drop role %1$I', rolname) from pg_roles \
        where rolname !~ '^pg_' and rolname <> 'postgres' \\gexec\n";

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
            if !cases::wanted_versions(case).contains(&version) {
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
            server.try_psql(&database, CLEAN);
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
        let id = case["id"].as_str().unwrap();
        server.psql(database, &cases::script(id, &case["setup"]));
        let slot = format!("select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')");
        server.psql(database, &slot);
        if let Some(script) = case.get("sql") {
            server.psql(database, &cases::script(id, script));
            return;
        }
        let mut sessions = BTreeMap::new();
        for (session, script) in cases::steps(case) {
            let session = sessions
                .entry(session)
                .or_insert_with(|| Session::open(url));
            session.run(&script);
        }
        // All of them end before one is waited for: it may wait for a lock of another.
        let ending: Vec<_> = sessions.into_values().map(Session::end).collect();
        for session in ending {
            session.join().unwrap();
        }
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

        /// Gives it no more scripts.
        fn end(self) -> JoinHandle<()> {
            self.runs
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
