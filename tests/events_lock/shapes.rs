//! Shapes of events may grow, and change only on purpose.

use std::path::PathBuf;

use annals::prelude::*;
use annals::testing::{EventsLock, Update};

use crate::life::{Life, Program, before};

program! { field_renamed,
    #[derive(Event, Debug, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Written { words: String },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { words: "a".into() }]
    }
}

program! { variant_renamed,
    #[derive(Event, Debug, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Noted { text: String },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Noted { text: "a".into() }]
    }
}

program! { name_kept,
    #[derive(Event, Debug, Serialize, Deserialize)]
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
    #[derive(Event, Debug, Serialize, Deserialize)]
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
    #[derive(Event, Debug, Serialize, Deserialize)]
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
    #[derive(Event, Debug, Serialize, Deserialize)]
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
    #[derive(Event, Debug, Serialize, Deserialize)]
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
    #[derive(Event, Debug, Serialize, Deserialize)]
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
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(from = "std::string::String", into = "std::string::String")]
    #[derive(Clone)]
    struct String(std::string::String);

    impl From<std::string::String> for String {
        fn from(text: std::string::String) -> String {
            String(text.to_lowercase())
        }
    }

    impl From<String> for std::string::String {
        fn from(String(text): String) -> std::string::String {
            text.to_uppercase()
        }
    }

    #[derive(Event, Debug, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Written { text: String },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { text: String("a".into()) }]
    }
}

program! { without_sample,
    #[derive(Event, Debug, Serialize, Deserialize)]
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
    #[derive(Event, Debug, Serialize, Deserialize)]
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
fn what_was_never_released_can_be_rewritten() {
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
