//! Programs at points of their lives, and what is said when one takes the place of another.

use std::path::{Path, PathBuf};

use annals::prelude::*;
use annals::testing::{EventsLock, Update};
use tempfile::TempDir;

/// A program at some point of its life: its events, and an account folded from them.
pub(crate) type Program = fn(PathBuf) -> EventsLock;

/// One version of the program after the other, over one file.
pub(crate) struct Life {
    directory: TempDir,
}

impl Life {
    /// Without a file yet.
    pub(crate) fn empty() -> Life {
        Life {
            directory: TempDir::new().unwrap(),
        }
    }

    pub(crate) fn begin(program: Program) -> Life {
        let life = Life::empty();
        life.released(program);
        life
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("events.lock")
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap()
    }

    /// The program goes on with what it adds.
    pub(crate) fn released(&self, program: Program) {
        program(self.file()).verify(Update::New).unwrap();
        program(self.file()).verify(Update::Nothing).unwrap();
    }

    /// What is said about the program, without the file's path. Nothing is written.
    pub(crate) fn differences(&self, program: Program, update: Update) -> String {
        let before = std::fs::read(self.file()).ok();
        let drift = program(self.file()).verify(update).unwrap_err().to_string();
        assert_eq!(std::fs::read(self.file()).ok(), before);
        without(&drift, &self.file())
    }

    /// What is said about a change that an ordinary update must not settle.
    pub(crate) fn refuses(&self, program: Program) -> String {
        let told = self.differences(program, Update::Nothing);
        assert_eq!(self.differences(program, Update::New), told);
        told
    }
}

pub(crate) fn without(text: &str, path: &Path) -> String {
    text.replace(&path.display().to_string(), "events.lock")
}

/// The program as it was first.
pub(crate) mod first {
    use super::*;

    #[derive(Event, Debug, Serialize, Deserialize)]
    #[event(category = "account")]
    pub(crate) enum AccountEvent {
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
    pub(crate) struct Account {
        pub(crate) owner: Option<String>,
        pub(crate) cents: i64,
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

    pub(crate) fn samples() -> Vec<AccountEvent> {
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

    pub(crate) fn program(file: PathBuf) -> EventsLock {
        EventsLock::at(file)
            .events(samples())
            .aggregate::<Account>("account")
    }
}

program! { before,
    #[derive(Event, Debug, Serialize, Deserialize)]
    #[event(category = "note")]
    pub(crate) enum NoteEvent {
        Written { text: String },
    }

    pub(crate) fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Written { text: "a".into() }]
    }
}

/// What the change from one nested type to the next must be: refused with these words, an
/// addition, or nothing at all.
#[track_caller]
pub(crate) fn refused(was: Program, is: Program, words: &str) {
    let life = Life::begin(was);
    let why = life.refuses(is);
    assert!(why.contains(words), "{why}");
}

#[track_caller]
pub(crate) fn added(was: Program, is: Program) {
    let life = Life::begin(was);
    life.differences(is, Update::Nothing);
    life.released(is);
}

#[track_caller]
pub(crate) fn unchanged(was: Program, is: Program) {
    let life = Life::begin(was);
    is(life.file()).verify(Update::Nothing).unwrap();
}
