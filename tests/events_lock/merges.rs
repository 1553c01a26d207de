//! A file after a merge, and a test that fails.

use annals::testing::Update;
use tempfile::TempDir;

use crate::life::{Life, first};

#[test]
fn an_unfinished_merge_is_told_by_its_line() {
    let life = Life::begin(first::program);
    std::fs::write(
        life.file(),
        life.text()
            .replacen("    fields", "<<<<<<< ours\n    fields", 1),
    )
    .unwrap();
    let told = life.refuses(first::program);
    assert!(told.contains("Was a merge left unfinished?"), "{told}");
    // A file from a machine with other line ends is the same file.
    std::fs::write(
        life.file(),
        Life::begin(first::program).text().replace('\n', "\r\n"),
    )
    .unwrap();
    first::program(life.file()).verify(Update::Nothing).unwrap();
}

#[test]
#[should_panic(expected = "what is stored is not what")]
fn a_test_fails_with_what_differs() {
    // In a directory that is gone, so that it fails whatever `ANNALS_UPDATE` says.
    first::program(TempDir::new().unwrap().path().join("events.lock")).check();
}

#[test]
fn a_merged_entry_says_how_to_merge() {
    let life = Life::begin(first::program);
    // Both branches gave one more sample, and the merge kept the lines of both.
    let theirs = life.text().replacen(
        "    sample json {\"owner\":\"Ada\"}\n",
        "    sample json {\"owner\":\"Ada\"}\n    sample json {\"owner\":\"Bob\"}\n",
        1,
    );
    std::fs::write(life.file(), &theirs).unwrap();
    let why = life.refuses(first::program);
    assert!(
        why.contains("The entry `event account.opened v1` is not as a test wrote it"),
        "{why}"
    );
    assert!(why.contains("git checkout --ours"), "{why}");
    let theirs = Life::begin(first::program)
        .text()
        .replace("    over account.closed v1 json null\n", "");
    std::fs::write(life.file(), &theirs).unwrap();
    let why = life.refuses(first::program);
    assert!(why.contains("The entry `fold account v1`"), "{why}");
}
