//! The cases: what they say, and how records are compared with it.

use std::path::PathBuf;

use annals_cdc::debezium::DebeziumMessage;
use annals_cdc::{BeforeImage, Body, Columns, Record, RowOp, TableName};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The variable that names another file of cases.
const FILE: &str = "ANNALS_CDC_CASES";

fn file() -> PathBuf {
    std::env::var_os(FILE).map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/cdc-cases.json"),
        PathBuf::from,
    )
}

fn text() -> String {
    let file = file();
    std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()))
}

/// The messages of a case, their members in the order of the file.
pub(crate) fn messages(id: &str) -> Vec<DebeziumMessage> {
    messages_in(&text(), id)
}

/// As `messages`, of an own case.
pub(crate) fn own_messages(id: &str) -> Vec<DebeziumMessage> {
    messages_in(OWN, id)
}

fn messages_in(text: &str, id: &str) -> Vec<DebeziumMessage> {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        id: String,
        #[serde(default)]
        messages: Vec<DebeziumMessage>,
    }
    let all: File = serde_json::from_str(text).unwrap();
    let mut cases = all.cases.into_iter();
    cases.find(|case| case.id == id).unwrap().messages
}

/// The cases of a kind, at least one.
pub(crate) fn of_kind(kind: &str) -> Vec<Value> {
    let file = file();
    of_kind_in(kind, &text(), &file.display().to_string())
}

/// What a case of each kind may say. What is not checked could say anything.
const MEMBERS: [(&str, &[&str]); 3] = [
    ("sql", &["setup", "sql", "steps", "expected", "requires"]),
    (
        "debezium-json",
        &[
            "messages",
            "expected",
            "adapter",
            "column_types",
            "column_schemas",
        ],
    ),
    (
        "procedure",
        &["procedure", "expected_outcome", "observed", "requires"],
    ),
];

/// All cases, each of a kind that is run, with nothing that is not looked at.
pub(crate) fn all() -> Vec<Value> {
    checked(&text(), &file().display().to_string())
}

fn checked(text: &str, file: &str) -> Vec<Value> {
    const OF_ALL: [&str; 5] = ["id", "kind", "source", "note", "verified"];
    let all: Value = serde_json::from_str(text).unwrap();
    assert_eq!(all["format"], "annals-cdc-cases/1", "{file}");
    let cases = all["cases"].as_array().unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for case in cases {
        let id = case["id"].as_str().unwrap();
        assert!(ids.insert(id), "{file}: two cases `{id}`");
        let kind = case["kind"].as_str().unwrap();
        let members = MEMBERS.iter().find(|(of, _)| *of == kind);
        let Some((_, members)) = members else {
            panic!("{file}: case `{id}` is of kind `{kind}`, which nothing runs");
        };
        for member in case.as_object().unwrap().keys() {
            let is_known = OF_ALL.contains(&&**member) || members.contains(&&**member);
            assert!(
                is_known,
                "{file}: nothing looks at `{member}` of case `{id}`"
            );
        }
    }
    cases.clone()
}

/// Variations of the cases that are in no file of others.
pub(crate) fn own() -> Vec<Value> {
    own_of_kind("sql")
}

/// The own cases of a kind.
pub(crate) fn own_of_kind(kind: &str) -> Vec<Value> {
    of_kind_in(kind, OWN, "own cases")
}

const OWN: &str = include_str!("../data/own-cases.json");

fn of_kind_in(kind: &str, text: &str, file: &str) -> Vec<Value> {
    let mut cases = checked(text, file);
    cases.retain(|case| case["kind"] == kind);
    assert!(!cases.is_empty(), "{file} has no case of kind `{kind}`");
    cases
}

/// Says how many ran, also when the test passes: through no `print!`, which would be captured.
#[allow(clippy::explicit_write)]
pub(crate) fn ran(kind: &str, count: usize) {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "cdc cases of kind {kind}: {count} ran").unwrap();
    assert!(count > 0, "no case of kind `{kind}` ran");
}

/// The version of PostgreSQL that a case asks for, where it does: `PostgreSQL 17+`.
pub(crate) fn wanted_version(case: &Value) -> u32 {
    let requires = case["requires"].as_str().unwrap_or_default();
    let wanted = requires.strip_prefix("PostgreSQL ");
    wanted.map_or(0, |wanted| {
        let digits: String = wanted.chars().take_while(char::is_ascii_digit).collect();
        digits
            .parse()
            .unwrap_or_else(|_| panic!("`{requires}` is no version"))
    })
}

/// Says which case does not run on this server, and why.
#[allow(clippy::explicit_write)]
pub(crate) fn skipped(case: &Value, version: u32) {
    use std::io::Write as _;
    let (id, requires) = (&case["id"], &case["requires"]);
    writeln!(
        std::io::stdout(),
        "cdc case {id} NOT RUN: it requires {requires}, and the server is {version}"
    )
    .unwrap();
}

/// What a case expects, with everything written out that it abbreviates.
pub(crate) fn expected(case: &Value) -> Vec<Value> {
    let mut records = Vec::new();
    for record in case["expected"].as_array().unwrap() {
        match record.get("$range") {
            None => records.push(written_out(record, 0)),
            Some(range) => {
                let end = |n: usize| range[n].as_i64().unwrap();
                for i in end(0)..=end(1) {
                    records.push(written_out(&record["record"], i));
                }
            }
        }
    }
    records
}

fn written_out(value: &Value, i: i64) -> Value {
    match value {
        Value::String(text) => text.replace("{i}", &i.to_string()).into(),
        Value::Array(items) => items.iter().map(|item| written_out(item, i)).collect(),
        Value::Object(members) if members.contains_key("$repeat") => {
            let count = members["$repeat"][1].as_u64().unwrap() as usize;
            members["$repeat"][0].as_str().unwrap().repeat(count).into()
        }
        Value::Object(members) if members.contains_key("$concat") => {
            let parts = members["$concat"].as_array().unwrap().iter();
            let parts = parts.map(|part| written_out(part, i).as_str().unwrap().to_owned());
            parts.collect::<String>().into()
        }
        Value::Object(members) if members.contains_key("$i_plus") => {
            (i + members["$i_plus"].as_i64().unwrap()).into()
        }
        Value::Object(members) => {
            let members = members.iter();
            let written = members.map(|(name, value)| (name.clone(), written_out(value, i)));
            Value::Object(written.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

/// A record in the words of the cases.
pub(crate) fn shown(record: &Record) -> Map<String, Value> {
    let name = |table: &TableName| table.to_string();
    let said = match &record.body {
        Body::Row(row) => json!({
            "op": match row.op {
                RowOp::Read => "r",
                RowOp::Insert => "c",
                RowOp::Update => "u",
                RowOp::Delete => "d",
            },
            "table": name(&row.table),
            "before": row.before.columns().map(columns),
            "before_kind": match row.before {
                BeforeImage::None => "none",
                BeforeImage::Key(_) => "key",
                BeforeImage::Full(_) => "full",
            },
            "after": row.after.as_ref().map(columns),
            "unchanged": row.unchanged.iter().map(|name| &**name).collect::<Vec<_>>(),
            "snapshot": row.snapshot.as_deref(),
        }),
        Body::Truncate(truncate) => {
            let mut tables: Vec<_> = truncate.tables.iter().map(name).collect();
            tables.sort();
            json!({
                "op": "t",
                "tables": tables,
                "cascade": truncate.cascade,
                "restart_identity": truncate.restart_identity,
            })
        }
        Body::Message(message) => json!({
            "op": "m",
            "prefix": message.prefix,
            "content": String::from_utf8_lossy(&message.content),
            "content_base64": base64(&message.content),
            "transactional": message.transactional,
        }),
        other => json!({ "op": format!("{other:?}") }),
    };
    let Value::Object(mut said) = said else {
        panic!("no object");
    };
    said.insert("lsn".into(), record.at.lsn.get().into());
    said.insert("txid".into(), record.at.xid.into());
    said.insert("origin".into(), record.origin.as_deref().into());
    said
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn columns(columns: &Columns) -> Value {
    let columns = columns.iter();
    let members = columns.map(|(name, value)| (name.to_string(), Value::from(value)));
    Value::Object(members.collect())
}

/// Compares a record with what is expected of it: everything that the case says.
#[track_caller]
pub(crate) fn check(id: &str, at: usize, record: &Map<String, Value>, expected: &Value) {
    for (name, value) in expected.as_object().unwrap() {
        let mut value = value.clone();
        let found = record.get(name).cloned();
        if name == "tables" {
            let mut names = value.as_array().unwrap().clone();
            names.sort_by_key(|name| name.as_str().unwrap().to_owned());
            value = names.into();
        }
        assert_eq!(
            found,
            Some(value),
            "case `{id}`, record {at}: `{name}` of {expected}"
        );
    }
}
