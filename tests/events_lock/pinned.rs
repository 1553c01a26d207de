//! Categories, names and tags are pinned; what changes nothing stored is no difference.

use std::path::PathBuf;

use annals::prelude::*;
use annals::testing::{EventsLock, Update};

use crate::life::{Life, Program, added, before, first, refused, unchanged};

program! { category_renamed,
    #[derive(Event, Debug, Serialize, Deserialize)]
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
    #[derive(Event, Debug, Serialize, Deserialize)]
    #[event(category = "memo")]
    enum NoteEvent {
        Written { text: String },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { text: "a".into() }]
    }
}

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

mod twice {
    use super::*;

    #[derive(Event, Debug, Serialize, Deserialize)]
    #[event(category = "note")]
    enum One {
        Written { text: String },
    }

    #[derive(Event, Debug, Serialize, Deserialize)]
    #[event(category = "note")]
    enum Other {
        Written { text: String },
    }

    fn program(file: PathBuf) -> EventsLock {
        EventsLock::at(file)
            .events([One::Written { text: "a".into() }])
            .events([Other::Written { text: "a".into() }])
    }

    #[test]
    fn two_types_that_write_one_name_are_both_named() {
        let life = Life::empty();
        let why = life.refuses(program);
        assert!(
            why.contains("twice::One`") && why.contains("twice::Other`"),
            "{why}"
        );
    }
}

program! { tagged_option,
    #[derive(Event, Debug, Serialize, Deserialize)]
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
    #[derive(Event, Debug, Serialize, Deserialize)]
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

program! { two_fields,
    #[derive(Event, Debug, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Written { r#type: u8, text: String },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { r#type: 1, text: "a ".into() }]
    }
}

program! { two_fields_otherwise,
    #[derive(Event, Debug, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Written { text: std::string::String, r#type: u8 },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { text: "a ".into(), r#type: 1 }]
    }
}

program! { two_fields_aliased,
    #[derive(Event, Debug, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Written { r#type: u8, #[serde(alias = "words")] text: String },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { r#type: 1, text: "a ".into() }]
    }
}

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

/// Serde leaves a field of a nested type out, and fills it in with its default.
mod lost {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Author {
        name: String,
        #[serde(skip)]
        mail: String,
    }

    #[derive(Event, Debug, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Written { by: Author },
    }

    pub(super) fn sample(mail: &str) -> EventsLock {
        let by = Author {
            name: "Ada".into(),
            mail: mail.into(),
        };
        EventsLock::at("").events([NoteEvent::Written { by }])
    }
}

#[test]
fn a_sample_that_loses_a_field_is_refused() {
    let said = |mail| {
        let drift = lost::sample(mail).verify(Update::Nothing).unwrap_err();
        drift.to_string()
    };
    let told = said("ada@example.org");
    for word in [
        "`note.written` is read back as another value",
        "mail: \"ada@example.org\"",
        "mail: \"\"",
    ] {
        assert!(told.contains(word), "{told}");
    }
    assert!(!said("").contains("read back as another value"));
}
