//! The cases: what they say, and how records are compared with it.

use std::ops::Range;
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
        if kind == "sql" {
            let has = |member: &str| case.get(member).is_some();
            assert!(
                has("sql") != has("steps"),
                "{file}: case `{id}` has either `sql` or `steps`"
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

/// The versions of PostgreSQL that a case is for: all of them, unless it says which.
pub(crate) fn wanted_versions(case: &Value) -> Range<u32> {
    match &case["requires"] {
        Value::Null => 0..u32::MAX,
        Value::String(text) => versions_in(text),
        Value::Array(texts) => {
            let texts: Vec<_> = texts.iter().map(|text| text.as_str().unwrap()).collect();
            versions_in(&texts.join(", "))
        }
        other => panic!(
            "case {}: nothing understands `requires` {other}",
            case["id"]
        ),
    }
}

/// What a text says of versions: `PostgreSQL 15+`, `PostgreSQL < 18`, `PostgreSQL 15-17`. Other
/// things that it names, such as settings, the server of the tests has.
pub(crate) fn versions_in(text: &str) -> Range<u32> {
    let mut versions = 0..u32::MAX;
    let mut parts = text.split("PostgreSQL ");
    let mut before = parts.next().unwrap();
    for part in parts {
        let part = part.trim_start();
        let numbers = part.trim_start_matches(['<', '>', '=']);
        let sign = &part[..part.len() - numbers.len()];
        let (first, rest) = number(numbers.trim_start());
        let first = first.unwrap_or_else(|| panic!("`{text}` names no version"));
        let rest = rest.trim_start();
        let through = rest.strip_prefix(['-', '–']);
        let through = through.or_else(|| rest.strip_prefix("to "));
        let is_last = ["or older", "or earlier", "and older", "and earlier"];
        let of_part = match (sign, through.and_then(|of| number(of.trim_start()).0)) {
            ("<", None) => 0..first,
            ("<=", None) => 0..first + 1,
            (">", None) => first + 1..u32::MAX,
            ("=" | "==", None) => first..first + 1,
            ("", Some(last)) => first..last + 1,
            ("" | ">=", None) if before.trim_end().ends_with("before") => 0..first,
            ("", None) if is_last.iter().any(|last| rest.starts_with(last)) => 0..first + 1,
            ("" | ">=", None) => first..u32::MAX,
            _ => panic!("`{text}` names no versions"),
        };
        versions = versions.start.max(of_part.start)..versions.end.min(of_part.end);
        before = part;
    }
    versions
}

/// The number that a text begins with, and the rest of the text.
fn number(text: &str) -> (Option<u32>, &str) {
    let rest = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    (text[..text.len() - rest.len()].parse().ok(), rest)
}

/// A script of a case, which may be abbreviated, or one statement after the other.
pub(crate) fn script(id: &str, script: &Value) -> String {
    match written_out(script, None) {
        Value::Null => String::new(),
        Value::String(text) => text,
        Value::Array(parts) => {
            let parts = parts.iter().map(|part| self::script(id, part));
            parts.collect::<Vec<_>>().join("\n;\n")
        }
        other => panic!("case `{id}`: {other} is no script"),
    }
}

/// The steps of a case: of which session, and its script.
pub(crate) fn steps(case: &Value) -> Vec<(String, String)> {
    let id = case["id"].as_str().unwrap();
    let steps = case["steps"].as_array();
    let steps = steps.unwrap_or_else(|| panic!("case `{id}` has no list of steps"));
    let step = |step: &Value| {
        for member in step.as_object().unwrap().keys() {
            assert!(
                ["session", "sql", "note"].contains(&&**member),
                "case `{id}`: nothing looks at `{member}` of a step"
            );
        }
        (text_of(&step["session"]), script(id, &step["sql"]))
    };
    steps.iter().map(step).collect()
}

/// A text, or a number as one.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => panic!("{other} is no text"),
    }
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
    let all = case["expected"].as_array();
    let all = all.unwrap_or_else(|| panic!("case {} has no list `expected`", case["id"]));
    for record in all {
        match record.get("$range") {
            None => records.push(written_out(record, None)),
            Some(range) => {
                let end = |n: usize| range[n].as_i64().unwrap();
                for i in end(0)..=end(1) {
                    records.push(written_out(&record["record"], Some(i)));
                }
            }
        }
    }
    records
}

/// A value without abbreviations. The number of a record is known in a range alone: elsewhere
/// `{i}` is a text as any other.
fn written_out(value: &Value, i: Option<i64>) -> Value {
    match value {
        Value::String(text) => match i {
            Some(i) => text.replace("{i}", &i.to_string()).into(),
            None => text.clone().into(),
        },
        Value::Array(items) => items.iter().map(|item| written_out(item, i)).collect(),
        Value::Object(members) if members.contains_key("$repeat") => {
            let count = members["$repeat"][1].as_u64().unwrap() as usize;
            let text = text_of(&written_out(&members["$repeat"][0], i));
            text.repeat(count).into()
        }
        Value::Object(members) if members.contains_key("$concat") => {
            let parts = members["$concat"].as_array().unwrap().iter();
            let parts = parts.map(|part| text_of(&written_out(part, i)));
            parts.collect::<String>().into()
        }
        Value::Object(members) if members.contains_key("$i_plus") => {
            let i = i.expect("`$i_plus` is for records of a `$range`");
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
        assert!(
            SAID.contains(&&**name),
            "case `{id}`, record {at}: no record says `{name}`"
        );
        let value = match (&**name, value) {
            // Sets.
            ("tables" | "unchanged", names) => sorted(names),
            ("before" | "after", Value::Object(columns)) => in_texts(columns),
            (_, value) => value.clone(),
        };
        let found = match (&**name, record.get(name)) {
            ("unchanged", Some(names)) => sorted(names),
            (_, Some(found)) => found.clone(),
            // What such a record does not have.
            (_, None) => Value::Null,
        };
        assert_eq!(
            found, value,
            "case `{id}`, record {at}: `{name}` of {expected}"
        );
    }
}

/// What is said of records, each of some of them.
const SAID: [&str; 18] = [
    "op",
    "table",
    "tables",
    "before",
    "before_kind",
    "after",
    "unchanged",
    "snapshot",
    "cascade",
    "restart_identity",
    "prefix",
    "content",
    "content_base64",
    "transactional",
    "lsn",
    "txid",
    "origin",
    "tx",
];

/// Names in their order; what is no list stays.
fn sorted(names: &Value) -> Value {
    let Value::Array(names) = names else {
        return names.clone();
    };
    let mut names: Vec<String> = names.iter().map(text_of).collect();
    names.sort();
    names.into()
}

/// Columns with a number in place of its text, as `$i_plus` gives it.
fn in_texts(columns: &Map<String, Value>) -> Value {
    let columns = columns.iter().map(|(name, value)| {
        let value = match value {
            Value::Number(number) => number.to_string().into(),
            other => other.clone(),
        };
        (name.clone(), value)
    });
    Value::Object(columns.collect())
}
