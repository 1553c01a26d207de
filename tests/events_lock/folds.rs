//! Folds over stored events give what they gave, or say a new version.

use std::path::PathBuf;

use annals::Snapshots;
use annals::prelude::*;
use annals::testing::{EventsLock, Update};

use crate::life::{Life, first};

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
            Vec::from([1, 2].map(|times| NoteEvent::Written { text: text.clone(), times }))
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
            let numbers = |events: &[NoteEvent]| vec![1_u8, 2][..2 * events.len()].to_vec();
            program(file).fold("times", 1, numbers)
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
    let life = Life::empty();
    let told = life.differences(unstable, Update::New);
    assert!(told.contains(
        "The fold `count` v1 has no stable state over the stored events: its state \
            prints differently"
    ));
}
