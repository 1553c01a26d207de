//! What the file says, and what is added to it.

use std::path::PathBuf;

use annals::testing::{EventsLock, Update};

use crate::life::{Life, first};

#[test]
fn the_file_is_readable_and_the_same_in_every_run() {
    let life = Life::begin(first::program);
    insta::assert_snapshot!(life.text());
    let before = life.text();
    life.released(first::program);
    assert_eq!(life.text(), before);
}

#[test]
fn what_is_not_in_the_file_is_added_on_request() {
    let life = Life::empty();
    insta::assert_snapshot!(life.differences(first::program, Update::Nothing));
    life.released(first::program);
}

#[test]
fn a_sample_more_is_added_and_folded_after_the_others() {
    fn more(file: PathBuf) -> EventsLock {
        first::program(file).events([first::AccountEvent::Opened {
            owner: "Bob".into(),
        }])
    }
    let life = Life::begin(first::program);
    insta::assert_snapshot!(life.differences(more, Update::Nothing));
    life.released(more);
    // Its fold goes on from what was pinned, so a sample that the test has lost stays in the
    // history.
    first::program(life.file()).verify(Update::Nothing).unwrap();
    assert!(
        life.text()
            .contains(r#"over account.opened v1 json {"owner":"Bob"}"#)
    );
}
