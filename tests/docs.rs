//! The documentation names what is there: files, links, and the error texts of the sources.

#[path = "docs/ways.rs"]
mod ways;

use std::fs;
use std::path::{Path, PathBuf};

/// The pages that a newcomer reads first; together they stay short.
const FRONT: [&str; 5] = [
    "ARCHITECTURE.md",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "STYLE.md",
];
const FRONT_WORDS_MAX: usize = 5_500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder with one of these endings, without build output.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                found.extend(files(&path, endings));
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
    found
}

/// The targets of the links of a page.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split("](").skip(1);
    parts.filter_map(|part| part.split_once(')').map(|(target, _)| target))
}

/// What is between backticks on the lines of a page that are no code.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("```").step_by(2);
    let lines = prose.flat_map(str::lines);
    lines.flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn links_lead_to_files() {
    let mut wrong = Vec::new();
    for page in files(root(), &[".md"]) {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            let target = link.split('#').next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.contains(' ') || target.is_empty();
            if !elsewhere && !page.parent().unwrap().join(target).exists() {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_named_by_the_map_exist() {
    let mut wrong = Vec::new();
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        for name in names(&text) {
            let is_path = name.ends_with(".rs") || name.ends_with('/');
            let is_pattern = name.contains(['…', '<', ' ', '*']);
            if is_path && name.contains('/') && !is_pattern && !root().join(name).exists() {
                wrong.push(format!("{page}: {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn error_texts_of_the_page_are_in_the_sources() {
    let rooms = [
        "core/src",
        "projections/src",
        "runner/src",
        "streams/src",
        "store-sqlite",
        "store-postgres",
        "store-kafka/src",
    ];
    let rooms = rooms.iter().chain(&["src"]).map(|room| root().join(room));
    let sources: Vec<_> = rooms
        .filter(|room| room.exists())
        .flat_map(|room| files(&room, &[".rs", ".sql"]))
        .map(|file| joined(&fs::read_to_string(file).unwrap()))
        .collect();
    let page = fs::read_to_string(root().join("docs/operating/errors.md")).unwrap();
    let mut wrong = Vec::new();
    let tables = page.split("\n## ").skip(1);
    for row in tables
        .flat_map(str::lines)
        .filter(|line| line.starts_with("| `"))
    {
        let texts = row.trim_start_matches("| ").split(" | ").next().unwrap();
        for text in texts.split("`, `").flat_map(|text| text.split('…')) {
            let text = text.trim_matches(['`', ' ', ',']);
            if !sources.iter().any(|source| source.contains(text)) {
                wrong.push(text.to_owned());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Calls that a text names, such as `archive_unread` or `begin()`, between backticks.
fn calls(text: &str) -> impl Iterator<Item = &str> {
    let letter = |sign: char| sign.is_ascii_lowercase() || sign == '_';
    let named = text.split('`').skip(1).step_by(2);
    let calls = named.filter(|name| name.contains('_') || name.ends_with("()"));
    let names = calls.map(|name| name.trim_end_matches("()"));
    names.filter(move |name| name.len() > 1 && name.chars().all(letter))
}

/// Names of PostgreSQL that texts are about.
const OF_SERVERS: [&str; 5] = [
    "__transaction_state",
    "application_name",
    "default_transaction_read_only",
    "max_slot_wal_keep_size",
    "pg_logical_emit_message",
];

#[test]
fn calls_named_by_error_texts_exist() {
    let rooms = [
        "core/src",
        "projections/src",
        "runner/src",
        "cdc/src",
        "store-kafka/src",
    ];
    let rooms = rooms
        .iter()
        .chain(&["store-sqlite/src", "store-postgres/src", "src"]);
    let sources: Vec<_> = rooms
        .flat_map(|room| files(&root().join(room), &[".rs"]))
        .map(|file| joined(&fs::read_to_string(file).unwrap()))
        .collect();
    let all = sources.concat();
    // A call, an option of a store, or a word of an attribute or a setting of a server.
    let exists = |name: &str| {
        OF_SERVERS.contains(&name)
            || [
                format!("fn {name}("),
                format!("fn {name}<"),
                format!("pub {name}: "),
                format!("const {name}"),
                format!("(\"{name}\""),
                format!("\"{name}\" "),
            ]
            .iter()
            .any(|found| all.contains(found))
    };
    let mut wrong = Vec::new();
    for source in &sources {
        let lines = source
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let texts = lines.filter(|line| line.contains('"'));
        let named = texts.flat_map(calls);
        wrong.extend(named.filter(|name| !exists(name)).map(str::to_owned));
    }
    wrong.sort_unstable();
    wrong.dedup();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The source with texts that go over several lines in one.
fn joined(source: &str) -> String {
    let mut parts = source.split("\\\n");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(part.trim_start());
    }
    text
}

#[test]
fn the_front_pages_stay_short() {
    let words = FRONT
        .iter()
        .map(|page| fs::read_to_string(root().join(page)).unwrap())
        .map(|text| text.split_whitespace().count())
        .sum::<usize>();
    assert!(words <= FRONT_WORDS_MAX, "{words} words");
}
