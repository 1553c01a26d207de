//! `events.lock`: a changed shape, name or fold fails with the reason, and what is new is added on
//! request.

#![cfg(feature = "testing")]
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use annals::Snapshots;
use annals::prelude::*;
use annals::testing::{EventsLock, Update};
use tempfile::TempDir;

/// A program at some point of its life: its events, and an account folded from them.
type Program = fn(PathBuf) -> EventsLock;

/// One version of the program after the other, over one file.
struct Life {
    directory: TempDir,
}

impl Life {
    fn begin(program: Program) -> Life {
        let life = Life {
            directory: TempDir::new().unwrap(),
        };
        life.released(program);
        life
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("events.lock")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap()
    }

    /// The program goes on with what it adds.
    fn released(&self, program: Program) {
        program(self.file()).verify(Update::New).unwrap();
        program(self.file()).verify(Update::Nothing).unwrap();
    }

    /// What is said about the program, with the file's path left out. Nothing is written.
    fn differences(&self, program: Program, update: Update) -> String {
        let before = std::fs::read(self.file()).ok();
        let drift = program(self.file()).verify(update).unwrap_err().to_string();
        assert_eq!(std::fs::read(self.file()).ok(), before);
        without(&drift, &self.file())
    }

    /// What is said about a change that an ordinary update must not settle.
    fn refuses(&self, program: Program) -> String {
        let told = self.differences(program, Update::Nothing);
        assert_eq!(self.differences(program, Update::New), told);
        told
    }
}

fn without(text: &str, path: &Path) -> String {
    text.replace(&path.display().to_string(), "events.lock")
}

/// The program as it was first.
mod first {
    use super::*;

    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "account")]
    pub(super) enum AccountEvent {
        Opened {
            owner: String,
        },
        Deposited {
            #[event(tag = "till")]
            by: Option<u8>,
            cents: i64,
        },
        Closed,
    }

    #[derive(Debug, Default)]
    pub(super) struct Account {
        pub(super) owner: Option<String>,
        pub(super) cents: i64,
    }

    impl Aggregate for Account {
        type Event = AccountEvent;

        fn apply(&mut self, event: &AccountEvent) {
            match event {
                AccountEvent::Opened { owner } => self.owner = Some(owner.clone()),
                AccountEvent::Deposited { cents, .. } => self.cents += cents,
                AccountEvent::Closed => self.owner = None,
            }
        }
    }

    pub(super) fn samples() -> Vec<AccountEvent> {
        vec![
            AccountEvent::Opened {
                owner: "Ada".into(),
            },
            AccountEvent::Deposited { by: None, cents: 5 },
            AccountEvent::Deposited {
                by: Some(7),
                cents: i64::MAX - 5,
            },
            AccountEvent::Closed,
        ]
    }

    pub(super) fn program(file: PathBuf) -> EventsLock {
        EventsLock::at(file)
            .events(samples())
            .aggregate::<Account>("account")
    }
}

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
    let life = Life {
        directory: TempDir::new().unwrap(),
    };
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

/// Events with other shapes under the names of the first program.
macro_rules! program {
    ($name:ident, $($event:tt)*) => {
        mod $name {
            use super::*;

            $($event)*

            pub(super) fn program(file: PathBuf) -> EventsLock {
                EventsLock::at(file).events(samples())
            }
        }
    };
}

program! { before,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    pub(super) enum NoteEvent {
        Written { text: String },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { text: "a".into() }]
    }
}

program! { field_renamed,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Written { words: String },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { words: "a".into() }]
    }
}

program! { variant_renamed,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Noted { text: String },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Noted { text: "a".into() }]
    }
}

program! { name_kept,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        #[event(name = "note.written")]
        Noted { text: String },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Noted { text: "a".into() }]
    }
}

program! { aliased,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        #[event(alias = "note.written")]
        Noted { text: String },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Noted { text: "a".into() }]
    }
}

program! { second_version,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        #[event(version = 2, upcast(1 = upcast))]
        Written { words: Vec<String> },
    }

    #[derive(Deserialize)]
    struct WrittenV1 {
        text: String,
    }

    fn upcast(WrittenV1 { text }: WrittenV1) -> NoteEvent {
        NoteEvent::Written { words: vec![text] }
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { words: vec!["a".into()] }]
    }
}

program! { second_version_misread,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        #[event(version = 2, upcast(1 = upcast))]
        Written { words: Vec<String> },
    }

    fn upcast(words: Vec<String>) -> NoteEvent {
        NoteEvent::Written { words }
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { words: vec!["a".into()] }]
    }
}

program! { retired,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note", retired("note.written", upcast = forget))]
    enum NoteEvent {
        Burnt,
    }

    fn forget(_: serde::de::IgnoredAny) -> Option<NoteEvent> {
        None
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Burnt]
    }
}

program! { tagged,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Written {
            #[event(tag)]
            text: String,
        },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { text: "a".into() }]
    }
}

program! { written_otherwise,
    /// The same words in the source, other bytes in the store.
    #[derive(Serialize, Deserialize)]
    #[serde(from = "std::string::String", into = "std::string::String")]
    #[derive(Clone)]
    struct String(std::string::String);

    impl From<std::string::String> for String {
        fn from(text: std::string::String) -> String {
            String(text)
        }
    }

    impl From<String> for std::string::String {
        fn from(String(text): String) -> std::string::String {
            text.to_uppercase()
        }
    }

    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Written { text: String },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { text: String("a".into()) }]
    }
}

program! { without_sample,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Written { text: String },
        Burnt,
    }

    fn samples() -> [NoteEvent; 1] {
        let _ = NoteEvent::Burnt;
        [NoteEvent::Written { text: "a".into() }]
    }
}

program! { grown,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Written {
            text: String,
            mood: Option<String>,
            #[serde(default)]
            stars: u8,
        },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { text: "a".into(), mood: None, stars: 5 }]
    }
}

#[test]
fn a_shape_may_grow_by_what_old_events_lack() {
    let life = Life::begin(before::program);
    insta::assert_snapshot!("grown", life.differences(grown::program, Update::Nothing));
    life.released(grown::program);
    insta::assert_snapshot!("grown_file", life.text());
    let told = life.refuses(before::program);
    assert!(
        told.contains("`note.written` v1 has other fields"),
        "{told}"
    );
}

#[test]
fn a_changed_shape_is_told_with_old_and_new() {
    let life = Life::begin(before::program);
    insta::assert_snapshot!("a_field_renamed", life.refuses(field_renamed::program));
    insta::assert_snapshot!("other_bytes", life.refuses(written_otherwise::program));
    insta::assert_snapshot!("other_tags", life.refuses(tagged::program));
}

#[test]
fn a_name_that_nothing_reads_is_told_with_the_ways_out() {
    let life = Life::begin(before::program);
    insta::assert_snapshot!("a_variant_renamed", life.refuses(variant_renamed::program));
    name_kept::program(life.file())
        .verify(Update::Nothing)
        .unwrap();
}

#[test]
fn a_variant_without_a_sample_is_told() {
    let life = Life::begin(before::program);
    let told = life.differences(without_sample::program, Update::New);
    assert!(told.contains("`note.burnt` v1 has no sample."), "{told}");
}

#[test]
fn an_old_sample_stays_and_must_be_readable() {
    for program in [
        aliased::program as Program,
        second_version::program,
        retired::program,
    ] {
        let life = Life::begin(before::program);
        life.released(program);
        assert!(life.text().contains(
            "event note.written v1\n    fields { text: String }\n    sample json {\"text\":\"a\"}\n"
        ));
    }
    let life = Life::begin(before::program);
    insta::assert_snapshot!(
        "an_upcaster_that_reads_something_else",
        life.refuses(second_version_misread::program)
    );
    life.released(second_version::program);
    // Going back loses what newer programs wrote.
    let told = life.refuses(before::program);
    assert!(
        told.contains("`note.written` v2 is in the file, and nothing reads it."),
        "{told}"
    );
}

#[test]
fn what_was_never_released_can_be_written_anew() {
    for program in [
        field_renamed::program as Program,
        variant_renamed::program,
        written_otherwise::program,
        tagged::program,
    ] {
        let changed = Life::begin(before::program);
        let fresh = Life::begin(program);
        program(changed.file()).verify(Update::Everything).unwrap();
        assert_eq!(changed.text(), fresh.text());
    }
    // What can be read is kept.
    let life = Life::begin(before::program);
    second_version::program(life.file())
        .verify(Update::Everything)
        .unwrap();
    assert!(life.text().contains("event note.written v1\n"));
    // So is nothing of a file that is none.
    std::fs::write(life.file(), "<<<<<<<").unwrap();
    before::program(life.file())
        .verify(Update::Everything)
        .unwrap();
    assert_eq!(life.text(), Life::begin(before::program).text());
}

/// An account that folds otherwise, in the version that the test says.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Doubled {
    cents: i128,
}

impl Aggregate for Doubled {
    type Event = first::AccountEvent;

    fn apply(&mut self, event: &first::AccountEvent) {
        if let first::AccountEvent::Deposited { cents, .. } = event {
            self.cents += 2 * i128::from(*cents);
        }
    }

    fn snapshots() -> Option<Snapshots<Doubled>> {
        Some(Snapshots::every(10).fold_version(2))
    }
}

#[test]
fn a_changed_fold_needs_a_new_version() {
    fn folded(version: u32, factor: i64) -> impl Fn(PathBuf) -> EventsLock {
        move |file| {
            EventsLock::at(file).events(first::samples()).fold(
                "account",
                version,
                move |events: &[first::AccountEvent]| {
                    let mut account = first::Account::default();
                    events.iter().for_each(|event| account.apply(event));
                    account.cents /= factor;
                    account
                },
            )
        }
    }
    let life = Life::begin(first::program);
    insta::assert_snapshot!("another_state", life.refuses(|file| folded(1, 2)(file)));
    let told = life.differences(|file| folded(2, 2)(file), Update::Nothing);
    assert!(told.contains("The fold `account` v2 is new."), "{told}");
    life.released(|file| folded(2, 2)(file));
    let told = life.refuses(|file| folded(1, 1)(file));
    assert!(
        told.contains("The fold `account` is v1, and the file has seen v2."),
        "{told}"
    );
    // The number is the one that its snapshots have.
    life.released(|file| folded(2, 2)(file));
    let told = life.refuses(|file| {
        EventsLock::at(file)
            .events(first::samples())
            .aggregate::<Doubled>("account")
    });
    assert!(
        told.contains("The fold `account` v2 gives another state"),
        "{told}"
    );
    let told = life.refuses(|file| EventsLock::at(file).events(first::samples()));
    assert!(
        told.contains("The fold `account` v2 is in the file and not in the test."),
        "{told}"
    );
}

#[test]
fn a_fold_goes_over_old_events_as_they_read_now() {
    program! { second,
        #[derive(Event, Debug, Serialize, Deserialize)]
        #[event(category = "note")]
        enum NoteEvent {
            #[event(version = 2, upcast(1 = twice))]
            Written { text: String, times: u8 },
        }

        fn twice((text,): (String,)) -> Vec<NoteEvent> {
            vec![NoteEvent::Written { text: text.clone(), times: 1 }, NoteEvent::Written { text, times: 2 }]
        }

        fn samples() -> [NoteEvent; 1] {
            [NoteEvent::Written { text: "b".into(), times: 3 }]
        }

        pub(super) fn folded(file: PathBuf) -> EventsLock {
            program(file).fold("times", 1, |events: &[NoteEvent]| {
                events.iter().map(|NoteEvent::Written { times, .. }| *times).collect::<Vec<_>>()
            })
        }
    }
    program! { first_of_two,
        #[derive(Event, Debug, Serialize, Deserialize)]
        #[event(category = "note")]
        enum NoteEvent {
            Written(String, #[serde(skip)] ()),
        }

        fn samples() -> [NoteEvent; 1] {
            [NoteEvent::Written("a".into(), ())]
        }

        pub(super) fn folded(file: PathBuf) -> EventsLock {
            program(file).fold("times", 1, |events: &[NoteEvent]| vec![1_u8, 2][..2 * events.len()].to_vec())
        }
    }
    let life = Life::begin(first_of_two::folded);
    life.released(second::folded);
    assert!(
        life.text().ends_with(
            "        | [\n        |     1,\n        |     2,\n        |     3,\n        | ]\n"
        ),
        "{}",
        life.text()
    );
}

#[test]
fn a_state_that_prints_differently_each_time_is_told() {
    fn unstable(file: PathBuf) -> EventsLock {
        let count = std::cell::Cell::new(0);
        EventsLock::at(file).events(first::samples()).fold(
            "count",
            1,
            move |_: &[first::AccountEvent]| {
                count.set(count.get() + 1);
                count.get()
            },
        )
    }
    let life = Life {
        directory: TempDir::new().unwrap(),
    };
    let told = life.differences(unstable, Update::New);
    assert!(told.contains(
        "The fold `count` v1 has no stable state over the stored events: its state \
            prints differently"
    ));
}

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
