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
fn a_name_without_a_reader_is_reported_with_remedies() {
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
        let text = life.text();
        assert!(text.contains("event note.written v1\n"), "{text}");
        assert!(text.contains("\n    fields { text: String }\n"), "{text}");
        assert!(
            text.contains("\n    sample json {\"text\":\"a\"}\n"),
            "{text}"
        );
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
        life.text().contains(
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

/// A program of one event, `note.written`, with the type that it holds.
macro_rules! noted {
    ($name:ident, $inner:item, $value:expr) => {
        program! { $name,
            #[allow(unused_imports)]
            use serde::{Deserializer, Serializer};

            $inner

            #[derive(Event, Serialize, Deserialize)]
            #[event(category = "note")]
            enum NoteEvent {
                Written { inner: Inner },
            }

            fn samples() -> [NoteEvent; 1] {
                [NoteEvent::Written { inner: $value }]
            }
        }
    };
}

/// What the change from one nested type to the next must be: refused with these words, an
/// addition, or nothing at all.
#[track_caller]
fn refused(was: Program, is: Program, words: &str) {
    let life = Life::begin(was);
    let why = life.refuses(is);
    assert!(why.contains(words), "{why}");
}

#[track_caller]
fn added(was: Program, is: Program) {
    let life = Life::begin(was);
    life.differences(is, Update::Nothing);
    life.released(is);
}

#[track_caller]
fn unchanged(was: Program, is: Program) {
    let life = Life::begin(was);
    is(life.file()).verify(Update::Nothing).unwrap();
}

mod units {
    use super::*;

    noted! { seconds,
        #[derive(Serialize, Deserialize)]
        struct Inner {
            #[serde(with = "annals::chrono::serde::ts_seconds")]
            at: annals::chrono::DateTime<annals::chrono::Utc>,
        },
        Inner { at: "2026-03-31T12:00:00Z".parse().unwrap() }
    }

    noted! { milliseconds,
        #[derive(Serialize, Deserialize)]
        struct Inner {
            #[serde(with = "annals::chrono::serde::ts_milliseconds")]
            at: annals::chrono::DateTime<annals::chrono::Utc>,
        },
        Inner { at: "2026-03-31T12:00:00Z".parse().unwrap() }
    }

    noted! { gross_and_net,
        #[derive(Serialize, Deserialize)]
        struct Inner { gross: u8, net: u8 },
        Inner { gross: 119, net: 100 }
    }

    noted! { net_and_gross,
        #[derive(Serialize, Deserialize)]
        struct Inner {
            #[serde(rename = "net")]
            gross: u8,
            #[serde(rename = "gross")]
            net: u8,
        },
        Inner { gross: 119, net: 100 }
    }

    macro_rules! by_hand {
        ($name:ident, $factor:literal) => {
            program! { $name,
                use serde::{Deserializer, Serializer};

                struct Inner(u32);

                impl Serialize for Inner {
                    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                        to.serialize_u32(self.0 * $factor)
                    }
                }

                impl<'de> Deserialize<'de> for Inner {
                    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Inner, D::Error> {
                        Ok(Inner(u32::deserialize(from)? / $factor))
                    }
                }

                #[derive(Event, Serialize, Deserialize)]
                #[event(category = "note")]
                enum NoteEvent {
                    Written { inner: Inner },
                }

                fn samples() -> [NoteEvent; 1] {
                    [NoteEvent::Written { inner: Inner(7) }]
                }
            }
        };
    }
    by_hand!(in_euros, 1);
    by_hand!(in_cents, 100);

    /// K18 18.1.
    #[test]
    fn old_bytes_that_give_other_values_are_refused() {
        let words = "has a sample that no value in the test is written as";
        refused(seconds::program, milliseconds::program, words);
        refused(gross_and_net::program, net_and_gross::program, words);
        refused(
            in_euros::program,
            in_cents::program,
            "written in other bytes",
        );
        refused(in_cents::program, in_euros::program, words);
    }
}

mod upcasters {
    use super::*;

    macro_rules! upcasted {
        ($name:ident, $old:ident, $result:expr) => {
            program! { $name,
                #[derive(Event, Serialize, Deserialize)]
                #[event(category = "note")]
                enum NoteEvent {
                    #[event(version = 2, upcast(1 = upcast))]
                    Paid { cents: u64 },
                }

                #[derive(Deserialize)]
                struct PaidV1 {
                    #[allow(dead_code, reason = "one of the upcasters does not look at it")]
                    euros: u64,
                    #[serde(default)]
                    cents: u64,
                }

                fn upcast($old: PaidV1) -> Option<NoteEvent> {
                    $result
                }

                fn samples() -> [NoteEvent; 1] {
                    [NoteEvent::Paid { cents: 500 }]
                }
            }
        };
    }

    program! { first_version,
        #[derive(Event, Serialize, Deserialize)]
        #[event(category = "note")]
        enum NoteEvent {
            Paid { euros: u64 },
        }

        fn samples() -> [NoteEvent; 1] {
            [NoteEvent::Paid { euros: 7 }]
        }
    }
    upcasted!(
        hundred,
        old,
        Some(NoteEvent::Paid {
            cents: old.euros * 100 + old.cents
        })
    );
    upcasted!(
        thousand,
        old,
        Some(NoteEvent::Paid {
            cents: old.euros * 1_000 + old.cents
        })
    );
    upcasted!(
        forgotten,
        _old,
        None.filter(|_: &NoteEvent| _old.euros + _old.cents > 0)
    );
    upcasted!(misread, old, Some(NoteEvent::Paid { cents: old.cents }));

    program! { third_version,
        #[derive(Event, Serialize, Deserialize)]
        #[event(category = "note")]
        enum NoteEvent {
            #[event(version = 3, upcast(1 = first, 2 = second))]
            Paid { amount: String },
        }

        #[derive(Deserialize)]
        struct PaidV1 {
            euros: u64,
        }

        #[derive(Deserialize)]
        struct PaidV2 {
            cents: u64,
        }

        fn first(PaidV1 { euros }: PaidV1) -> PaidV2 {
            PaidV2 { cents: euros * 100 }
        }

        fn second(PaidV2 { cents }: PaidV2) -> NoteEvent {
            NoteEvent::Paid { amount: format!("{cents} ct") }
        }

        fn samples() -> [NoteEvent; 1] {
            [NoteEvent::Paid { amount: "500 ct".into() }]
        }
    }

    /// K18 18.2.
    #[test]
    fn results_of_upcasters_are_pinned() {
        for other in [
            thousand::program as Program,
            forgotten::program,
            misread::program,
        ] {
            let life = Life::begin(first_version::program);
            life.released(hundred::program);
            let why = life.refuses(other);
            assert!(
                why.contains("`note.paid` v1 becomes another event than it did"),
                "{why}"
            );
        }
        // One version more changes what it is today, and not what it became.
        let life = Life::begin(first_version::program);
        life.released(hundred::program);
        life.released(third_version::program);
        assert!(life.text().contains(
            "    sample json {\"euros\":7}\n    becomes note.paid v2 json {\"cents\":700}\n"
        ));
    }
}

program! { category_renamed,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "memo")]
    enum NoteEvent {
        #[event(name = "note.written")]
        Written { text: String },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { text: "a".into() }]
    }
}

program! { category_and_names_renamed,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "memo")]
    enum NoteEvent {
        Written { text: String },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { text: "a".into() }]
    }
}

/// K18 18.3.
#[test]
fn the_category_is_pinned() {
    for program in [
        category_and_names_renamed::program as Program,
        category_renamed::program,
    ] {
        refused(
            before::program,
            program,
            "Keep it: `#[event(category = \"note\")]`.",
        );
    }
}

mod nested {
    use super::*;

    noted! { signed, #[derive(Serialize, Deserialize)] struct Inner { cents: i64 }, Inner { cents: 5 } }
    noted! { unsigned, #[derive(Serialize, Deserialize)] struct Inner { cents: u64 }, Inner { cents: 5 } }
    noted! { small, #[derive(Serialize, Deserialize)] struct Inner { cents: u8 }, Inner { cents: 5 } }
    noted! { large, #[derive(Serialize, Deserialize)] struct Inner { cents: i128 }, Inner { cents: 5 } }

    noted! { two_kinds,
    #[derive(Serialize, Deserialize)] enum Inner { Gift, #[allow(dead_code)] Sale { to: String } }, Inner::Gift }
    noted! { one_kind, #[derive(Serialize, Deserialize)] enum Inner { Gift }, Inner::Gift }
    noted! { renamed_kind,
    #[derive(Serialize, Deserialize)] enum Inner { Gift, #[allow(dead_code)] Sold { to: String } }, Inner::Gift }
    noted! { three_kinds,
    #[derive(Serialize, Deserialize)]
    enum Inner { Gift, #[allow(dead_code)] Sale { to: String }, #[allow(dead_code)] Loan },
    Inner::Gift }

    noted! { euros,
    #[derive(Serialize, Deserialize)] struct Inner { #[serde(default = "super::eur")] currency: String },
    Inner { currency: "CZK".into() } }
    fn eur() -> String {
        "EUR".into()
    }

    fn usd() -> String {
        "USD".into()
    }
    noted! { no_default,
    #[derive(Serialize, Deserialize)] struct Inner { currency: String },
    Inner { currency: "CZK".into() } }
    noted! { dollars,
    #[derive(Serialize, Deserialize)] struct Inner { #[serde(default = "super::usd")] currency: String },
    Inner { currency: "CZK".into() } }
    noted! { strict,
    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner { currency: String },
    Inner { currency: "CZK".into() } }

    /// K18 18.4.
    #[test]
    fn nested_types_must_accept_what_they_accepted() {
        for narrower in [unsigned::program as Program, small::program] {
            refused(
                signed::program,
                narrower,
                "`.inner.cents` takes other numbers",
            );
        }
        for other in [one_kind::program as Program, renamed_kind::program] {
            refused(two_kinds::program, other, "`.inner` has not all variants");
        }
        for other in [no_default::program as Program, dollars::program] {
            refused(
                euros::program,
                other,
                "`.inner.currency` is filled in otherwise where it is absent",
            );
        }
        refused(
            no_default::program,
            strict::program,
            "`.inner` refuses fields that it ignored",
        );
    }

    #[test]
    fn nested_types_may_accept_more() {
        added(small::program, signed::program);
        added(signed::program, large::program);
        added(two_kinds::program, three_kinds::program);
        added(no_default::program, euros::program);
        added(strict::program, no_default::program);
    }
}

mod twice {
    use super::*;

    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum One {
        Written { text: String },
    }

    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum Other {
        Written { text: String },
    }

    fn program(file: PathBuf) -> EventsLock {
        EventsLock::at(file)
            .events([One::Written { text: "a".into() }])
            .events([Other::Written { text: "a".into() }])
    }

    /// K18 18.5.
    #[test]
    fn two_types_that_write_one_name_are_both_named() {
        let life = Life {
            directory: TempDir::new().unwrap(),
        };
        let why = life.refuses(program);
        assert!(
            why.contains("twice::One`") && why.contains("twice::Other`"),
            "{why}"
        );
    }
}

program! { tagged_option,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Written {
            #[event(tag = "mood")]
            mood: Option<String>,
        },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { mood: None }]
    }
}

program! { untagged_option,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Written { mood: Option<String> },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { mood: None }]
    }
}

#[test]
fn a_tag_is_pinned_where_no_sample_has_it() {
    refused(
        tagged_option::program,
        untagged_option::program,
        "has other fields",
    );
    refused(
        untagged_option::program,
        tagged_option::program,
        "has other fields",
    );
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

program! { two_fields,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Written { r#type: u8, text: String },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { r#type: 1, text: "a ".into() }]
    }
}

program! { two_fields_otherwise,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Written { text: std::string::String, r#type: u8 },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { text: "a ".into(), r#type: 1 }]
    }
}

program! { two_fields_aliased,
    #[derive(Event, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Written { r#type: u8, #[serde(alias = "words")] text: String },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { r#type: 1, text: "a ".into() }]
    }
}

/// K18 18.6.
#[test]
fn what_changes_nothing_stored_is_no_difference() {
    unchanged(two_fields::program, two_fields_otherwise::program);
    unchanged(two_fields_otherwise::program, two_fields::program);
    added(two_fields::program, two_fields_aliased::program);
    refused(
        two_fields_aliased::program,
        two_fields::program,
        "has other fields",
    );
    let life = Life::begin(two_fields::program);
    let text = life.text();
    for other in [
        format!("\u{feff}{text}"),
        text.replace('\n', "  \n"),
        text.trim_end().to_owned(),
    ] {
        std::fs::write(life.file(), other).unwrap();
        two_fields::program(life.file())
            .verify(Update::Nothing)
            .unwrap();
    }
}

#[test]
fn a_state_with_trailing_blanks_passes_again() {
    struct Padded;

    impl std::fmt::Debug for Padded {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("one  \n\n  two ")
        }
    }

    fn program(file: PathBuf) -> EventsLock {
        EventsLock::at(file).events(first::samples()).fold(
            "padded",
            1,
            |_: &[first::AccountEvent]| Padded,
        )
    }
    Life::begin(program);
}
