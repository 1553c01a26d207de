//! No secret is shown by `Debug`: all types of all rooms are looked at.

use std::fs;
use std::path::{Path, PathBuf};

const ROOMS: [&str; 9] = [
    "src",
    "core/src",
    "runner/src",
    "projections/src",
    "streams/src",
    "cdc/src",
    "store-sqlite/src",
    "store-postgres/src",
    "store-kafka/src",
];

/// A field that may hold a secret: by its name, or because its type holds one.
fn is_secret(name: &str, of: &str) -> bool {
    let is_text = of.contains("String") || of.contains("str");
    let named = ["password", "secret", "url"];
    let held = ["PgConnectOptions", "ReplicationConfig"];
    is_text && named.iter().any(|secret| name.contains(secret))
        || held.iter().any(|holder| of.contains(holder))
        || of.starts_with("Vec<(String, String)>")
}

/// Settings of a topic are no secret.
const PUBLIC: [&str; 1] = ["TopicSpec::settings"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The structs of a source whose `Debug` is derived and shows a secret, as `Type::field`.
fn shown(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut derived = false;
    let mut within: Option<String> = None;
    for line in source.lines().map(str::trim) {
        if let Some(of) = &within {
            if let Some((name, of_field)) = line.split_once(": ") {
                let name = name.rsplit(' ').next().unwrap_or_default();
                let field = format!("{of}::{name}");
                if is_secret(name, of_field) && !PUBLIC.contains(&&*field) {
                    found.push(field);
                }
            }
            if line == "}" {
                within = None;
            }
        } else if line.starts_with("#[derive(") {
            derived = line.contains("Debug");
        } else if let Some((_, named)) = line.split_once("struct ") {
            let end = named
                .find(|sign: char| !sign.is_alphanumeric())
                .unwrap_or(named.len());
            if derived && line.ends_with('{') {
                within = Some(named[..end].to_owned());
            }
            derived = false;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            derived = false;
        }
    }
    found
}

#[test]
fn no_derived_debug_shows_a_secret() {
    let mut wrong = Vec::new();
    for room in ROOMS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(room);
        for file in sources(&folder) {
            let source = fs::read_to_string(&file).expect("a source can be read");
            let found = shown(&source).into_iter();
            wrong.extend(found.map(|field| format!("{}: {field}", file.display())));
        }
    }
    assert!(wrong.is_empty(), "write `Debug` by hand: {wrong:#?}");
}

#[test]
fn a_derived_debug_over_a_secret_is_found() {
    let source = "
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct Address {
            pub(super) control: PgConnectOptions,
            user: String,
            password: String,
        }

        #[derive(Clone)]
        struct Hidden {
            password: String,
        }
    ";
    assert_eq!(shown(source), ["Address::control", "Address::password"]);
}
